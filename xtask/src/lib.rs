//! Developer tasks, and the parts of them that the tests use too: programs that never outlive their parent, a real
//! Kubernetes control plane made of them, and the operator's installation on it.

pub mod control_plane;
pub mod installation;
pub mod supervised;
pub mod workspace;
