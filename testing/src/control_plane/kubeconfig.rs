//! Kubeconfig files that hold everything they refer to, so that they can be copied and passed around as text.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::certificates::Identity;

/// How a client proves who it is.
pub enum Credential<'a> {
    /// By a client certificate.
    Certificate(&'a Identity),
    /// By a bearer token.
    Token(&'a str),
}

/// A kubeconfig with one cluster, one user and one context that joins them.
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, credential: &Credential<'_>) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    let credential = match credential {
        Credential::Certificate(identity) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            encode(&identity.certificate),
            encode(&identity.key)
        ),
        Credential::Token(token) => format!("token: {}", quote(token)),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: control-plane
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    {credential}
contexts:
- name: control-plane
  context:
    cluster: control-plane
    user: {user}
current-context: control-plane
",
        ca = encode(ca_pem),
        user = quote(user),
    )
}

/// A JSON string is a YAML string whatever is in it; user names such as `system:admin` need that.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_data_encoded() {
        let text = kubeconfig(
            "https://127.0.0.1:6443",
            "CA",
            "system:a \"b\"",
            &Credential::Token("t"),
        );
        assert!(text.contains("certificate-authority-data: Q0E=\n"), "{text}");
        assert!(text.contains("- name: \"system:a \\\"b\\\"\"\n"), "{text}");
        assert!(text.contains("    token: \"t\"\n"), "{text}");
        let identity = Identity {
            certificate: "C".into(),
            key: "K".into(),
        };
        let text = kubeconfig(
            "https://127.0.0.1:6443",
            "CA",
            "alice",
            &Credential::Certificate(&identity),
        );
        assert!(
            text.contains("    client-certificate-data: Qw==\n    client-key-data: Sw==\n"),
            "{text}"
        );
    }
}
