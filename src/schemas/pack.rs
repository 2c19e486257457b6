//! How a toolkit's tools are put into ConfigMaps.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::IntoStaticStr;

use super::record::CHECKSUM;
use super::tool::CachedTool;
use super::{FORMAT, names};
use crate::api::composio_schema_cache::EncodingPolicy;
use crate::digest::sha256_hex;

/// Key with what is known of the toolkit.
pub const TOOLKIT_KEY: &str = "toolkit.json";
/// Key with the tools as plain JSON.
pub const TOOLS_KEY: &str = "tools.json";
/// Key with the tools as compressed JSON, in `binaryData`.
pub const TOOLS_GZIP_KEY: &str = "tools.json.gz";

/// Most bytes of tools in one ConfigMap. Kubernetes allows 1 MiB of data; the rest is for the toolkit's description and
/// for metadata.
pub const MAX_TOOLS_BYTES: usize = 900 * 1024;

/// Most bytes of tools that are unpacked from one ConfigMap. Whoever may edit ConfigMaps may put a megabyte there that
/// unpacks to a thousand. JSON of schemas rarely shrinks to less than a thirtieth.
pub const MAX_UNPACKED_BYTES: u64 = 32 * 1024 * 1024;

/// Most ConfigMaps of one toolkit.
pub const MAX_PARTS: usize = 64;

/// How the annotations of the operator begin.
const ANNOTATION_PREFIX: &str = "composio-operator.dev/";

/// Longest text about a toolkit that is kept, in bytes.
const MAX_TEXT: usize = 4096;

/// How tools are stored.
#[derive(Clone, Copy, Debug, Deserialize, Eq, IntoStaticStr, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Encoding {
    /// Plain.
    Json,
    /// Compressed.
    Gzip,
}

/// What a reader learns of the toolkit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolkitFacts {
    /// Its slug.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Address of its logo.
    pub logo: String,
    /// Address of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
    /// Version of the tools. None: Composio does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How accounts authenticate, such as `OAUTH2`.
    pub auth_modes: Vec<String>,
    /// What kind of toolkit it is.
    pub categories: Vec<String>,
    /// How many tools Composio has beside those that are cached, and did not deliver.
    #[serde(default, skip_serializing_if = "super::manifest::is_zero")]
    pub missing_tools: usize,
}

/// `toolkit.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolkitDocument {
    /// [`FORMAT`].
    pub format: u32,
    /// What is known of the toolkit.
    #[serde(flatten)]
    pub facts: ToolkitFacts,
    /// Number of tools in all parts.
    pub tools: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// SHA-256 of the texts of all parts, one after the other.
    pub sha256: String,
    /// The ConfigMaps, in the order of the tools; the first is the one that this is in.
    pub parts: Vec<PartReference>,
    /// Tools that are too large for any ConfigMap, and so left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted_tools: Vec<String>,
}

/// Where a part of the tools is, and how to know that it is the right one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartReference {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// Number of tools in it.
    pub tools: usize,
    /// SHA-256 of its `tools.json`; of the text, also where it is stored compressed.
    pub sha256: String,
}

/// The data of one ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Name of the ConfigMap.
    pub name: String,
    /// Its `data`.
    pub data: BTreeMap<String, String>,
    /// Its `binaryData`.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

/// A toolkit, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// What is in the first part's `toolkit.json`.
    pub document: ToolkitDocument,
    /// The ConfigMaps, the toolkit's own first.
    pub parts: Vec<Part>,
}

/// Packs the tools of a toolkit. `prefix` begins the names of the ConfigMaps.
pub fn pack(
    prefix: &str,
    mut facts: ToolkitFacts,
    mut tools: Vec<CachedTool>,
    policy: EncodingPolicy,
) -> Packed {
    for text in [&mut facts.name, &mut facts.description, &mut facts.logo] {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    tools.sort_by(|a, b| a.slug.cmp(&b.slug));
    tools.dedup_by(|later, earlier| later.slug == earlier.slug);
    let mut omitted_tools = Vec::new();
    let fits = |tool: &CachedTool| {
        tool.json.len() + 2 <= MAX_TOOLS_BYTES
            || (policy != EncodingPolicy::Json
                && gzip(&text(std::slice::from_ref(tool))).len() <= MAX_TOOLS_BYTES)
    };
    tools.retain(|tool| {
        let keep = fits(tool);
        if !keep {
            omitted_tools.push(tool.slug.clone());
        }
        keep
    });
    let size = tools.iter().map(|tool| tool.json.len() + 1).sum::<usize>() + 1;
    let encoding = match policy {
        EncodingPolicy::Json => Encoding::Json,
        EncodingPolicy::Auto if size <= MAX_TOOLS_BYTES => Encoding::Json,
        EncodingPolicy::Auto | EncodingPolicy::Gzip => Encoding::Gzip,
    };
    let mut stored = Vec::new();
    match encoding {
        Encoding::Json => split_plain(&tools, &mut stored),
        Encoding::Gzip => split_compressed(&tools, &mut stored),
    }
    let toolkit_name = names::toolkit(prefix, &facts.slug);
    let references = stored.iter().enumerate().map(|(index, stored)| PartReference {
        config_map: names::part(&toolkit_name, index),
        tools: stored.tools,
        sha256: stored.sha256.clone(),
    });
    let document = ToolkitDocument {
        format: FORMAT,
        facts,
        tools: tools.len(),
        encoding,
        sha256: match stored.as_slice() {
            [only] => only.sha256.clone(),
            _ => whole_hash(&tools, &stored),
        },
        parts: references.collect(),
        omitted_tools,
    };
    let parts = stored
        .into_iter()
        .zip(&document.parts)
        .enumerate()
        .map(|(index, (stored, reference))| {
            let mut part = Part {
                name: reference.config_map.clone(),
                ..Part::default()
            };
            match stored.content {
                Content::Plain(text) => part.data.insert(TOOLS_KEY.to_owned(), text).map(drop),
                Content::Compressed(bytes) => part
                    .binary_data
                    .insert(TOOLS_GZIP_KEY.to_owned(), bytes)
                    .map(drop),
            };
            if index == 0 {
                let text = serde_json::to_value(&document).unwrap_or_default().to_string();
                part.data.insert(TOOLKIT_KEY.to_owned(), text);
            }
            part
        });
    Packed {
        parts: parts.collect(),
        document,
    }
}

enum Content {
    Plain(String),
    Compressed(Vec<u8>),
}

struct Stored {
    content: Content,
    tools: usize,
    sha256: String,
}

impl Stored {
    fn new(content: Content, text: &str, tools: usize) -> Self {
        Self {
            content,
            tools,
            sha256: sha256_hex([text.as_bytes()]),
        }
    }
}

/// The JSON array of these tools.
fn text(tools: &[CachedTool]) -> String {
    let mut text = String::with_capacity(tools.iter().map(|tool| tool.json.len() + 1).sum::<usize>() + 2);
    text.push('[');
    for (index, tool) in tools.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&tool.json);
    }
    text.push(']');
    text
}

/// As many tools as fit into each part.
fn split_plain(tools: &[CachedTool], stored: &mut Vec<Stored>) {
    let mut begin = 0;
    let mut size = 2;
    for (index, tool) in tools.iter().enumerate() {
        if index > begin && size + tool.json.len() + 1 > MAX_TOOLS_BYTES {
            let text = text(&tools[begin..index]);
            stored.push(Stored::new(Content::Plain(text.clone()), &text, index - begin));
            (begin, size) = (index, 2);
        }
        size += tool.json.len() + 1;
    }
    let text = text(&tools[begin..]);
    stored.push(Stored::new(
        Content::Plain(text.clone()),
        &text,
        tools.len() - begin,
    ));
}

/// Halves until every part fits: how well tools compress is only known once they are.
fn split_compressed(tools: &[CachedTool], stored: &mut Vec<Stored>) {
    let text = text(tools);
    let bytes = gzip(&text);
    if bytes.len() <= MAX_TOOLS_BYTES || tools.len() < 2 {
        stored.push(Stored::new(Content::Compressed(bytes), &text, tools.len()));
        return;
    }
    drop(bytes);
    let (first, second) = tools.split_at(middle(tools));
    split_compressed(first, stored);
    split_compressed(second, stored);
}

/// Where about half of the bytes are on each side. At least one tool is.
fn middle(tools: &[CachedTool]) -> usize {
    let half = tools.iter().map(|tool| tool.json.len()).sum::<usize>() / 2;
    let mut seen = 0;
    let reached = tools.iter().position(|tool| {
        seen += tool.json.len();
        seen > half
    });
    reached.unwrap_or(0).clamp(1, tools.len() - 1)
}

fn whole_hash(tools: &[CachedTool], stored: &[Stored]) -> String {
    let mut rest = tools;
    let texts: Vec<String> = stored
        .iter()
        .map(|stored| {
            let (these, others) = rest.split_at(stored.tools);
            rest = others;
            text(these)
        })
        .collect();
    sha256_hex(texts.iter().map(String::as_bytes))
}

/// The same bytes for the same text: no time and no name in the header.
fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(text.as_bytes());
    encoder.finish().unwrap_or_default()
}

/// Reads the tools of one part, however they are stored.
///
/// # Errors
/// The part holds no tools, or they are damaged.
pub fn unpack(part: &Part) -> io::Result<Vec<Value>> {
    Ok(serde_json::from_str(&tools_text(part)?)?)
}

/// The text of the tools of one part, however they are stored.
///
/// # Errors
/// The part holds no tools, or they are damaged.
pub fn tools_text(part: &Part) -> io::Result<Cow<'_, str>> {
    match (part.data.get(TOOLS_KEY), part.binary_data.get(TOOLS_GZIP_KEY)) {
        (Some(text), _) => Ok(Cow::Borrowed(text)),
        (None, Some(bytes)) => {
            let mut text = String::new();
            let limit = MAX_UNPACKED_BYTES;
            GzDecoder::new(bytes.as_slice())
                .take(limit + 1)
                .read_to_string(&mut text)?;
            if text.len() as u64 > limit {
                let message = "the tools are larger than any that the operator packs";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            Ok(Cow::Owned(text))
        }
        (None, None) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the ConfigMap holds no tools",
        )),
    }
}

/// Hash over the name, the keys and the annotations of a ConfigMap that are ours: tells whether all of it is as it was
/// written, and where. What somebody added does not count.
pub fn checksum(part: &Part, annotations: &BTreeMap<String, String>) -> String {
    let keys = [
        TOOLKIT_KEY,
        TOOLS_KEY,
        TOOLS_GZIP_KEY,
        super::manifest::MANIFEST_KEY,
    ];
    let mut fields: Vec<(&str, &[u8])> = vec![("name", part.name.as_bytes())];
    fields.extend(keys.into_iter().filter_map(|key| {
        let plain = part.data.get(key).map(String::as_bytes);
        Some((
            key,
            plain.or_else(|| part.binary_data.get(key).map(Vec::as_slice))?,
        ))
    }));
    let ours = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX) && *key != CHECKSUM);
    fields.extend(ours.map(|(key, value)| (key.as_str(), value.as_bytes())));
    let lengths: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{key}:{}:", value.len()))
        .collect();
    let texts = lengths.iter().map(String::as_bytes);
    let values = fields.iter().map(|(_, value)| *value);
    sha256_hex(texts.zip(values).flat_map(|(length, value)| [length, value]))
}
