//! What tests and developer tasks run on: programs that never outlive their parent, a real Kubernetes control plane made of
//! them, and the operator's installation on it.

pub mod control_plane;
pub mod installation;
pub mod supervised;
pub mod workspace;
