//! What can go wrong in a call, and the questions callers ask about it.

use std::time::Duration;

/// Why a call gave no answer. Nothing in it grants access: keys and links are removed from messages before they are kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Composio, or a gateway in front of it, answered with an error status, or refused with a success status.
    #[error("Composio answered {status}: {message}")]
    Http {
        /// HTTP status code.
        status: u16,
        /// Composio's numeric error code as text, for example `10401`.
        code: Option<String>,
        /// Composio's error slug, for example `ConnectedAccount_BadRequest`.
        slug: Option<String>,
        /// Explanation of the remote side, at most 300 characters.
        message: String,
        /// Correlation id that Composio's support asks for.
        request_id: Option<String>,
        /// How long the remote side asks to wait.
        retry_after: Option<Duration>,
    },
    /// Something between the operator and Composio refused the request: the answer is not in Composio's words. It says nothing
    /// about the key, or about what the request was about.
    #[error("something in front of Composio, such as a proxy or a firewall, answered {status}: {message}")]
    Gateway {
        /// HTTP status code.
        status: u16,
        /// What can be read of the answer, at most 200 characters.
        message: String,
    },
    /// The request was sent and no complete answer arrived in time.
    #[error("Composio did not answer in time")]
    Timeout,
    /// No connection could be made: nothing was sent.
    #[error("Composio cannot be reached: {message}")]
    Connect {
        /// What the network said.
        message: String,
    },
    /// The connection broke after the request may have been sent.
    #[error("the connection to Composio broke: {message}")]
    Transport {
        /// What the network said.
        message: String,
    },
    /// A success status came with a body that is not what the API promises.
    #[error("Composio's answer cannot be understood: {message}")]
    Decode {
        /// What is wrong with the body; never a part of it.
        message: String,
        /// At most 200 characters of the body: of JSON only its structure, of HTML only its title.
        excerpt: String,
    },
    /// The shared rate budget would make this call wait for too long. Nothing was sent.
    #[error("the rate budget is used up for the next {}", seconds(*.retry_after))]
    BudgetExhausted {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// This process may not change anything at Composio any more. Nothing was sent.
    #[error("this replica does not lead any more")]
    NotAllowed,
    /// The API key is empty or contains characters that no HTTP header can carry. Nothing was sent.
    #[error("the API key is not a printable word")]
    InvalidKeyFormat,
    /// The settings of the client cannot be used.
    #[error("{message}")]
    InvalidOptions {
        /// Which setting, and what it must be.
        message: String,
    },
    /// The call is invalid, for example because an id is empty or contains a comma. Nothing was sent.
    #[error("{message}")]
    InvalidRequest {
        /// Which argument, and what it must be.
        message: String,
    },
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_millis().div_ceil(1000).max(1))
}

impl Error {
    /// The key is unknown or was revoked: no call with it will succeed.
    pub(crate) fn is_unauthorized(&self) -> bool {
        self.status() == Some(401)
    }

    /// The key lacks the scope for this call, or the object belongs to somebody else.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.status() == Some(403)
    }

    /// The object never existed or was deleted.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Composio's rate limiter refused the call; the call had no effect.
    pub(crate) fn is_rate_limited(&self) -> bool {
        self.status() == Some(429)
    }

    /// How long to wait before the next try, where something said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http { retry_after, .. } => *retry_after,
            Self::BudgetExhausted { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The same call may well succeed later without anybody changing anything. Rate limits are not among these: see
    /// [`is_throttled`](Self::is_throttled).
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Http { status, .. } => *status == 408 || *status >= 500,
            Self::Gateway { .. }
            | Self::Timeout
            | Self::Connect { .. }
            | Self::Transport { .. }
            | Self::Decode { .. } => true,
            Self::BudgetExhausted { .. }
            | Self::NotAllowed
            | Self::InvalidKeyFormat
            | Self::InvalidOptions { .. }
            | Self::InvalidRequest { .. } => false,
        }
    }

    /// Too many calls, by Composio's limit or by our own budget: only waiting helps.
    pub(crate) fn is_throttled(&self) -> bool {
        self.is_rate_limited() || matches!(self, Self::BudgetExhausted { .. })
    }

    /// A link was refused because another account of this user and toolkit holds the alias: 400, and the message says
    /// so. Its code, 600, is that of other refusals too.
    pub(crate) fn is_alias_taken(&self) -> bool {
        matches!(self, Self::Http { status: 400, message, .. }
            if message.contains("Alias") && message.contains("already in use"))
    }

    /// The request may have had its effect although no usable answer came: the caller must find that out before it sends
    /// the request again.
    #[cfg(test)]
    pub(crate) fn answer_unknown(&self) -> bool {
        match self {
            Self::Http { status, .. } => *status == 408 || *status >= 500,
            Self::Timeout | Self::Transport { .. } | Self::Decode { .. } => true,
            _ => false,
        }
    }

    /// HTTP status of the answer, where there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Http { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// A label from a closed set, for metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Http { status, .. } => match status {
                400 => "bad_request",
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not_found",
                408 => "timeout",
                409 => "conflict",
                410 => "gone",
                422 => "unprocessable",
                429 => "rate_limited",
                500.. => "server_error",
                400..=499 => "client_error",
                _ => "refused",
            },
            Self::Gateway { .. } => "gateway",
            Self::Timeout => "timeout",
            Self::Connect { .. } => "connect",
            Self::Transport { .. } => "transport",
            Self::Decode { .. } => "decode",
            Self::BudgetExhausted { .. } => "budget_exhausted",
            Self::NotAllowed => "not_allowed",
            Self::InvalidKeyFormat => "invalid_key",
            Self::InvalidOptions { .. } => "invalid_options",
            Self::InvalidRequest { .. } => "invalid_request",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16) -> Error {
        Error::Http {
            status,
            code: None,
            slug: None,
            message: "m".to_owned(),
            request_id: None,
            retry_after: None,
        }
    }

    #[test]
    fn each_error_answers_the_questions_of_its_callers() {
        let transport = Error::Transport {
            message: String::new(),
        };
        let gateway = Error::Gateway {
            status: 403,
            message: String::new(),
        };
        let connect = Error::Connect {
            message: String::new(),
        };
        let decode = Error::Decode {
            message: String::new(),
            excerpt: String::new(),
        };
        let budget = Error::BudgetExhausted {
            retry_after: Duration::from_secs(3),
        };
        let local = Error::InvalidRequest {
            message: String::new(),
        };
        // error, transient, answer unknown, throttled, outcome
        let table = [
            (http(200), false, false, false, "refused"),
            (http(302), false, false, false, "refused"),
            (http(400), false, false, false, "bad_request"),
            (http(401), false, false, false, "unauthorized"),
            (http(403), false, false, false, "forbidden"),
            (http(404), false, false, false, "not_found"),
            (http(408), true, true, false, "timeout"),
            (http(409), false, false, false, "conflict"),
            (http(410), false, false, false, "gone"),
            (http(418), false, false, false, "client_error"),
            (http(422), false, false, false, "unprocessable"),
            (http(429), false, false, true, "rate_limited"),
            (http(500), true, true, false, "server_error"),
            (http(503), true, true, false, "server_error"),
            (gateway, true, false, false, "gateway"),
            (Error::Timeout, true, true, false, "timeout"),
            (transport, true, true, false, "transport"),
            (connect, true, false, false, "connect"),
            (decode, true, true, false, "decode"),
            (budget, false, false, true, "budget_exhausted"),
            (Error::InvalidKeyFormat, false, false, false, "invalid_key"),
            (local, false, false, false, "invalid_request"),
        ];
        for (error, transient, unknown, throttled, outcome) in table {
            let answers = (
                error.is_transient(),
                error.answer_unknown(),
                error.is_throttled(),
                error.outcome(),
            );
            assert_eq!(answers, (transient, unknown, throttled, outcome), "{error:?}");
        }
    }

    #[test]
    fn a_taken_alias_is_known_by_its_code_or_its_message() {
        let refused = |status, code: Option<&str>, message: &str| Error::Http {
            status,
            code: code.map(str::to_owned),
            slug: None,
            message: message.to_owned(),
            request_id: None,
            retry_after: None,
        };
        let taken = "Alias \"a\" is already in use by another connection for this entity";
        assert!(refused(400, Some("600"), taken).is_alias_taken());
        assert!(refused(400, None, taken).is_alias_taken());
        assert!(!refused(400, Some("600"), "Callback URL is not allowed").is_alias_taken());
        assert!(!refused(409, Some("600"), taken).is_alias_taken());
        assert!(!Error::Timeout.is_alias_taken());
    }

    #[test]
    fn waiting_times_are_passed_on() {
        let wait = Duration::from_secs(7);
        assert_eq!(
            Error::BudgetExhausted { retry_after: wait }.retry_after(),
            Some(wait)
        );
        assert_eq!(
            Error::BudgetExhausted {
                retry_after: Duration::from_millis(1200)
            }
            .to_string(),
            "the rate budget is used up for the next 2 s"
        );
        assert_eq!(Error::Timeout.retry_after(), None);
    }
}
