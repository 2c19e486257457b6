//! What the operator does with the Kubernetes API beside watching: apply, finalizers, events, the leader's lease, and
//! the wait for its own CRDs. Shared by all controllers; knows none of the custom resources.

pub mod apply;
pub mod crds;
pub mod events;
pub mod explain;
pub mod lease;

#[cfg(test)]
pub(crate) mod fake_api;
