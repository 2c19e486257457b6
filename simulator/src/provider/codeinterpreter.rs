//! The code interpreter. It creates sandboxes, but the simulator runs no code: tools that would run some fail.

use serde_json::json;

use super::{Execution, Outcome};
use crate::ids;

pub(super) fn run(execution: &Execution<'_>) -> Outcome {
    match execution.tool.slug.as_str() {
        "CODEINTERPRETER_CREATE_SANDBOX" => Outcome::Done(json!({"sandbox_id": ids::uuid()})),
        "CODEINTERPRETER_EXECUTE_CODE" | "CODEINTERPRETER_RUN_TERMINAL_CMD" => Outcome::Failed {
            error: "The simulator runs no code.".to_owned(),
            data: json!({"stdout": "", "stderr": "The simulator runs no code."}),
        },
        _ => Outcome::NotSimulated,
    }
}
