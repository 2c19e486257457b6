//! Somebody who reads cached schemas as the documentation tells readers to, and believes nothing else.
//!
//! Written without the operator's own types: it reads what lies in the cluster as a program in any language would.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A toolkit that was read.
#[derive(Debug)]
pub struct Toolkit {
    /// The version that its ConfigMap tells.
    pub version: String,
    /// The tools, by slug.
    pub tools: BTreeSet<String>,
    /// What does not fit together although every hash did.
    pub contradiction: Option<String>,
}

/// Reads a toolkit from its ConfigMap and those that this one names. `None` where the parts are not of one version: then
/// everything is to be read again.
pub async fn read(config_maps: &Api<ConfigMap>, name: &str) -> Result<Option<Toolkit>> {
    let Some(head) = config_maps.get_opt(name).await? else {
        return Ok(None);
    };
    let text = head.data.as_ref().and_then(|data| data.get("toolkit.json"));
    let text = text.with_context(|| format!("ConfigMap {name} has no toolkit.json"))?;
    let document: Value = serde_json::from_str(text).with_context(|| format!("toolkit.json of {name}"))?;
    let mut texts = Vec::new();
    for part in document["parts"].as_array().into_iter().flatten() {
        let part_name = part["configMap"].as_str().unwrap_or_default();
        // The first part lies beside toolkit.json, and so was read with it.
        let other;
        let map = if part_name == name {
            Some(&head)
        } else {
            other = config_maps.get_opt(part_name).await?;
            other.as_ref()
        };
        match map.and_then(content) {
            Some(text) if sha256(&[&text]) == part["sha256"].as_str().unwrap_or_default() => texts.push(text),
            _ => return Ok(None),
        }
    }
    Ok(Some(understand(&document, &texts)))
}

/// The tools as text.
fn content(map: &ConfigMap) -> Option<String> {
    if let Some(text) = map.data.as_ref().and_then(|data| data.get("tools.json")) {
        return Some(text.clone());
    }
    let compressed = map.binary_data.as_ref()?.get("tools.json.gz")?;
    let mut text = String::new();
    GzDecoder::new(compressed.0.as_slice())
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Makes sense of parts whose hashes are right.
fn understand(document: &Value, texts: &[String]) -> Toolkit {
    let version = document["version"].as_str().unwrap_or_default();
    let tools: Vec<Value> = texts
        .iter()
        .flat_map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap_or_default())
        .collect();
    let others = tools
        .iter()
        .find(|tool| tool["version"] != document["version"] || tool["toolkit"]["slug"] != document["slug"]);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let contradiction = if document["tools"] != tools.len() {
        Some(format!("{} tools instead of {}", tools.len(), document["tools"]))
    } else if document["sha256"] != sha256(&texts) {
        Some("the hash of all parts is another one".to_owned())
    } else {
        others.map(|tool| format!("tool {} is not of version {version}", tool["slug"]))
    };
    let slugs = tools.iter().filter_map(|tool| tool["slug"].as_str());
    Toolkit {
        version: version.to_owned(),
        tools: slugs.map(str::to_owned).collect(),
        contradiction,
    }
}

/// In hexadecimal, over the texts one after the other.
fn sha256(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text);
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_together_is_told() {
        let tool = |version: &str| json!({"slug": "A", "version": version, "toolkit": {"slug": "a"}});
        let texts = |tools: Value| vec![tools.to_string()];
        let judge = |document: Value, texts: &[String]| understand(&document, texts).contradiction;
        let good = texts(json!([tool("1")]));
        let document = |count: usize, sha256: String| json!({"slug": "a", "version": "1", "tools": count, "sha256": sha256});
        let hash = |texts: &[String]| sha256(&[&texts[0]]);
        assert_eq!(judge(document(1, hash(&good)), &good), None);
        assert!(judge(document(2, hash(&good)), &good).is_some());
        assert!(judge(document(1, "0".to_owned()), &good).is_some());
        let other = texts(json!([tool("2")]));
        assert!(judge(document(1, hash(&other)), &other).is_some());
    }

    #[test]
    fn hashes_are_those_that_everybody_computes() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&["a", "bc"]), expected);
    }
}
