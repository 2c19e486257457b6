//! The certificates of one control plane: made when it starts, gone when it ends.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The names under which the API server is reached: from this machine, and by Pods through its Service.
const SERVER_NAMES: [&str; 6] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
];

/// A certificate and its private key, both as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

/// The authority that signs every certificate of one control plane. ECDSA P-256, because making an RSA key takes long.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority.
    pub fn new() -> Result<Self> {
        let mut params = params("composio-operator development", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("cannot make an authority")?;
        Ok(Self { issuer })
    }

    /// Its own certificate as PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// The API server's certificate, valid for loopback, the Service names and `service`, the address of the Service.
    pub fn server(&self, service: Ipv4Addr) -> Result<Identity> {
        let mut params = params("kube-apiserver", None);
        for name in SERVER_NAMES {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into()?),
            });
        }
        params
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::V4(service)));
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate. Kubernetes takes the common name as the user and the organization as a group.
    ///
    /// Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        self.sign(params(user, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign a certificate")?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The key pair behind service-account tokens, as PEM: (private, public).
pub fn service_account_keys() -> Result<(String, String)> {
    let key = KeyPair::generate().context("cannot make the service-account key")?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn params(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params
}

/// Writes a file that only this user can read.
pub fn write_private(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    use std::io::Write;
    let path = directory.join(name);
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn private_files_are_private_even_when_rewritten() {
        let directory = tempfile::TempDir::new().unwrap();
        write_private(directory.path(), "key", "a longer text").unwrap();
        let path = write_private(directory.path(), "key", "short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn each_identity_has_a_key_of_its_own() {
        let authority = Authority::new().unwrap();
        let alice = authority.client("alice", Some("team")).unwrap();
        let bob = authority.client("bob", None).unwrap();
        assert_ne!(alice.key, bob.key);
        assert!(alice.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(alice.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }
}
