//! Failures in a row, as every resource keeps them in its status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Failures in a row.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryStatus {
    /// How many.
    pub failures: i64,

    /// When the last one happened.
    pub last_failure_at: Time,

    /// Not tried again before this time. Absent: not before the spec changes or somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,

    /// What failed, as in the conditions.
    pub reason: String,
}
