//! The code interpreter. It hands out sandboxes, but the simulator runs nobody's code: those tools fail, and say so.

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
