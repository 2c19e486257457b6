//! The explanation in the body of an error answer.

use serde_json::Value;

use super::text;

/// The explanation in an error answer, as far as there is one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::composio) struct ErrorBody {
    pub code: Option<String>,
    pub slug: Option<String>,
    pub message: Option<String>,
    pub request_id: Option<String>,
    /// The body is Composio's own envelope: an object `error` that explains itself. Anything else, such as an HTML page, a
    /// gateway's flat message or nothing, may come from whatever is in between.
    pub from_composio: bool,
}

/// Reads `{"error": {message, code, slug, …}}` as well as the flat `{"message": …}` of the rate limiter.
pub(in crate::composio) fn error_body(body: &[u8]) -> ErrorBody {
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body) else {
        return ErrorBody::default();
    };
    let error = body.get("error").unwrap_or(&Value::Null);
    let details: Vec<String> = error["errors"]
        .as_array()
        .map(|errors| errors.iter().filter_map(text).collect())
        .unwrap_or_default();
    let message = text(&error["message"])
        .or_else(|| body.get("message").and_then(text))
        .or_else(|| text(error))
        .map(|message| {
            if details.is_empty() {
                message
            } else {
                format!("{message}: {}", details.join("; "))
            }
        });
    ErrorBody {
        code: text(&error["code"]).or_else(|| text(&error["error_code"])),
        slug: text(&error["slug"]),
        message,
        request_id: text(&error["request_id"]),
        from_composio: ["message", "code", "slug", "error_code"]
            .iter()
            .any(|field| text(&error[*field]).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_of_every_known_shape_are_decoded() {
        let full = error_body(
            br#"{"error":{"message":"Bad","code":600,"slug":"S","status":400,"request_id":"r","errors":["a","b"]}}"#,
        );
        let expected = ErrorBody {
            code: Some("600".into()),
            slug: Some("S".into()),
            message: Some("Bad: a; b".into()),
            request_id: Some("r".into()),
            from_composio: true,
        };
        assert_eq!(full, expected);
        assert_eq!(
            error_body(br#"{"error":{"code":"OriginMismatch"}}"#)
                .code
                .as_deref(),
            Some("OriginMismatch")
        );
        assert_eq!(
            error_body(br#"{"error":{"error_code":1810.0}}"#).code.as_deref(),
            Some("1810")
        );
        assert_eq!(
            error_body(br#"{"message":"Rate limit"}"#).message.as_deref(),
            Some("Rate limit")
        );
        assert_eq!(
            error_body(br#"{"error":"plain"}"#).message.as_deref(),
            Some("plain")
        );
        assert_eq!(error_body(b"<html>"), ErrorBody::default());
        for other in [
            "",
            "<html>",
            "null",
            r#"{"message":"Forbidden"}"#,
            r#"{"error":"denied"}"#,
            r#"{"error":{}}"#,
        ] {
            assert!(!error_body(other.as_bytes()).from_composio, "{other}");
        }
    }
}
