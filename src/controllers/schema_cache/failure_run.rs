//! Whether what fails for one toolkit would fail for all of them: pure functions over plain data.

use crate::api::Reason;
use crate::runtime::failure::Failure;

/// Toolkits in a row that fail for a reason that may not be theirs, before the rest are left for later.
const MAX_FAILURES: u32 = 5;

/// Toolkits in a row that failed for a reason that may not be theirs.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailureRun(u32);

impl FailureRun {
    /// A toolkit was read or written.
    pub fn succeeded(&mut self) {
        self.0 = 0;
    }

    /// Counts a failure, and tells whether it is taken for one of all toolkits. A refusal or an outage that meets one of
    /// them costs no other; when several in a row meet it, the rest would only meet it too.
    pub fn concerns_all(&mut self, failure: &Failure) -> bool {
        match failure.reason {
            Reason::RateLimited
            | Reason::WaitingForTurn
            | Reason::ApiKeyRejected
            | Reason::ApiKeyNotFound
            | Reason::ApiKeyNotShared => return true,
            Reason::ComposioUnavailable
            | Reason::ApiKeyForbidden
            | Reason::InvalidResponse
            | Reason::KubernetesApi => self.0 += 1,
            // Composio or Kubernetes answered, and the answer is about this toolkit.
            _ => self.0 = 0,
        }
        self.0 >= MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many toolkits in a row may fail like this before it concerns all; None: any number.
    fn bearable(reason: Reason) -> Option<usize> {
        let mut run = FailureRun::default();
        (0..100).position(|_| run.concerns_all(&Failure::transient(reason, "")))
    }

    #[test]
    fn several_in_a_row_concern_all_and_one_only_itself() {
        for reason in [
            Reason::ComposioUnavailable,
            Reason::ApiKeyForbidden,
            Reason::InvalidResponse,
            Reason::KubernetesApi,
        ] {
            assert_eq!(bearable(reason), Some(4), "{reason:?}");
        }
        for reason in [
            Reason::RateLimited,
            Reason::WaitingForTurn,
            Reason::ApiKeyRejected,
        ] {
            assert_eq!(bearable(reason), Some(0), "{reason:?}");
        }
        for reason in [
            Reason::ToolkitNotFound,
            Reason::EmptyResponse,
            Reason::IncompleteResponse,
            Reason::ConfigMapConflict,
            Reason::ToolkitRefused,
        ] {
            assert_eq!(bearable(reason), None, "{reason:?}");
        }
    }

    #[test]
    fn a_toolkit_that_works_ends_the_row() {
        let mut run = FailureRun::default();
        let forbidden = Failure::stalled(Reason::ApiKeyForbidden, "");
        for _ in 0..20 {
            for _ in 0..4 {
                assert!(!run.concerns_all(&forbidden));
            }
            run.succeeded();
        }
    }
}
