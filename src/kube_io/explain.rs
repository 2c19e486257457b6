//! What a failed request comes to, in one sentence.

use std::error::Error;
use std::fmt::Write;

/// The cause of `error` for a log line, a condition or an event: what the API server says, with its reason.
///
/// The `Display` of an API error repeats the whole answer in its debug form, which is nothing to show to anybody. Errors
/// of the connection are told with their causes, which alone say what happened.
pub fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match status.reason.as_str() {
            "" => format!("{} ({})", status.message, status.code),
            reason => format!("{} ({reason})", status.message),
        };
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        // Many errors already quote their cause.
        if !text.contains(&told) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {told}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn an_answer_is_told_in_the_servers_words() {
        let refused = Status::failure("widgets \"w\" not found", "NotFound").with_code(404);
        assert_eq!(
            explain(&kube::Error::Api(refused.boxed())),
            "widgets \"w\" not found (NotFound)"
        );
        let terse = Status::failure("busy", "").with_code(503);
        assert_eq!(explain(&kube::Error::Api(terse.boxed())), "busy (503)");
    }

    #[test]
    fn a_broken_connection_is_told_with_its_causes_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect")]
        struct Outer(#[source] std::io::Error);
        let inner = std::io::Error::other("no route");
        let error = kube::Error::Service(Box::new(Outer(inner)));
        assert_eq!(explain(&error), "ServiceError: cannot connect: no route");
    }
}
