//! Tables and properties for how tools are put into ConfigMaps.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tool(slug: &str, size: usize, noise: bool) -> CachedTool {
    let mut state = slug.bytes().fold(7_u64, |state, byte| {
        state.wrapping_mul(31).wrapping_add(byte.into())
    });
    let filler: String = (0..size)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if noise {
                char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
            } else {
                'x'
            }
        })
        .collect();
    CachedTool {
        slug: slug.to_owned(),
        json: json!({"slug": slug, "filler": filler}).to_string(),
    }
}

fn facts() -> ToolkitFacts {
    ToolkitFacts {
        slug: "github".to_owned(),
        ..ToolkitFacts::default()
    }
}

fn sizes(packed: &Packed) -> Vec<usize> {
    packed
        .parts
        .iter()
        .map(|part| {
            part.data.values().map(String::len).sum::<usize>()
                + part.binary_data.values().map(Vec::len).sum::<usize>()
        })
        .collect()
}

fn slugs(packed: &Packed) -> Vec<String> {
    let tools = packed.parts.iter().flat_map(|part| unpack(part).unwrap());
    tools
        .map(|tool| tool["slug"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_usual_toolkit_is_one_plain_config_map() {
    let packed = pack(
        "schemas",
        facts(),
        vec![tool("B", 10, false), tool("A", 10, false)],
        EncodingPolicy::Auto,
    );
    assert_eq!(packed.parts.len(), 1);
    assert_eq!(packed.parts[0].name, "schemas-github");
    assert_eq!(slugs(&packed), ["A", "B"]);
    let text = &packed.parts[0].data[TOOLS_KEY];
    assert_eq!(packed.document.sha256, sha256_hex([text.as_bytes()]));
    let document: ToolkitDocument = serde_json::from_str(&packed.parts[0].data[TOOLKIT_KEY]).unwrap();
    assert_eq!(document, packed.document);
}

#[test]
fn what_does_not_fit_plain_is_compressed() {
    let tools = (0..20)
        .map(|n| tool(&format!("T{n:02}"), 100_000, false))
        .collect();
    let packed = pack("schemas", facts(), tools, EncodingPolicy::Auto);
    assert_eq!(
        (packed.parts.len(), packed.document.encoding),
        (1, Encoding::Gzip)
    );
    assert_eq!(slugs(&packed).len(), 20);
}

#[test]
fn what_does_not_fit_compressed_goes_on_in_further_config_maps() {
    let tools: Vec<_> = (0..6).map(|n| tool(&format!("T{n}"), 400_000, true)).collect();
    for policy in [EncodingPolicy::Auto, EncodingPolicy::Json, EncodingPolicy::Gzip] {
        let packed = pack("schemas", facts(), tools.clone(), policy);
        assert!(packed.parts.len() > 1);
        assert_eq!(packed.parts[1].name, "schemas-github.2");
        assert_eq!(slugs(&packed), ["T0", "T1", "T2", "T3", "T4", "T5"]);
        assert!(packed.document.omitted_tools.is_empty());
        let texts = packed
            .parts
            .iter()
            .map(|part| Value::from(unpack(part).unwrap()).to_string());
        // Sorted JSON is read and written to the same text.
        let texts: Vec<String> = texts.collect();
        assert_eq!(
            packed.document.sha256,
            sha256_hex(texts.iter().map(String::as_bytes))
        );
        for (text, reference) in texts.iter().zip(&packed.document.parts) {
            assert_eq!(reference.sha256, sha256_hex([text.as_bytes()]));
        }
    }
}

#[test]
fn a_tool_too_large_for_any_config_map_is_named_and_the_rest_is_kept() {
    let tools = vec![
        tool("SMALL", 10, false),
        tool("GIANT", 2_000_000, true),
        tool("OTHER", 10, false),
    ];
    let packed = pack("schemas", facts(), tools, EncodingPolicy::Auto);
    assert_eq!(packed.document.omitted_tools, ["GIANT"]);
    assert_eq!(
        (slugs(&packed), packed.document.tools),
        (vec!["OTHER".to_owned(), "SMALL".to_owned()], 2)
    );
}

#[test]
fn a_toolkit_without_tools_is_an_empty_list() {
    let packed = pack("schemas", facts(), vec![], EncodingPolicy::Auto);
    assert_eq!(packed.parts[0].data[TOOLS_KEY], "[]");
}

#[test]
fn the_checksum_sees_everything_of_ours_and_nothing_else() {
    let part = pack(
        "schemas",
        facts(),
        vec![tool("A", 10, false)],
        EncodingPolicy::Json,
    )
    .parts
    .remove(0);
    let ours = BTreeMap::from([("composio-operator.dev/tools".to_owned(), "1".to_owned())]);
    let hash = checksum(&part, &ours);
    let mut foreign = (part.clone(), ours.clone());
    foreign.0.data.insert("note".to_owned(), "x".to_owned());
    for key in ["example.com/tools", CHECKSUM] {
        foreign.1.insert(key.to_owned(), "2".to_owned());
    }
    assert_eq!(checksum(&foreign.0, &foreign.1), hash);
    for key in [TOOLKIT_KEY, TOOLS_KEY] {
        let mut edited = part.clone();
        edited.data.get_mut(key).unwrap().push(' ');
        assert_ne!(checksum(&edited, &ours), hash);
        edited.data.remove(key);
        assert_ne!(checksum(&edited, &ours), hash);
    }
    let moved = Part {
        name: "schemas-other".to_owned(),
        ..part.clone()
    };
    assert_ne!(checksum(&moved, &ours), hash);
    let edited = BTreeMap::from([("composio-operator.dev/tools".to_owned(), "7777".to_owned())]);
    assert_ne!(checksum(&part, &edited), hash);
    assert_ne!(checksum(&part, &BTreeMap::new()), hash);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the sizes: every part fits, nothing is lost or doubled, the order does not matter.
    #[test]
    fn every_part_fits_and_nothing_is_lost(sizes_of in prop::collection::vec((1_usize..700_000, any::<bool>()), 0..8), policy in 0..3) {
        let policy = [EncodingPolicy::Auto, EncodingPolicy::Json, EncodingPolicy::Gzip][usize::try_from(policy).unwrap()];
        let tools: Vec<_> = sizes_of.iter().enumerate().map(|(n, (size, noise))| tool(&format!("T{n}"), *size, *noise)).collect();
        let packed = pack("schemas", facts(), tools.clone(), policy);
        prop_assert!(sizes(&packed).iter().all(|size| *size < 1024 * 1024 - 64 * 1024));
        prop_assert_eq!(slugs(&packed), tools.iter().map(|tool| tool.slug.clone()).collect::<Vec<_>>());
        let reversed = tools.into_iter().rev().collect();
        prop_assert_eq!(pack("schemas", facts(), reversed, policy), packed);
    }
}

/// Found as a ConfigMap of less than a megabyte that took nearly a gigabyte of memory.
#[test]
fn a_part_that_unpacks_to_more_than_any_is_not_unpacked() {
    let zeros = vec![b' '; usize::try_from(MAX_UNPACKED_BYTES).unwrap() + 1];
    let mut packer = GzBuilder::new().write(Vec::new(), Compression::fast());
    packer.write_all(&zeros).unwrap();
    let part = Part {
        binary_data: BTreeMap::from([(TOOLS_GZIP_KEY.to_owned(), packer.finish().unwrap())]),
        ..Part::default()
    };
    assert_eq!(tools_text(&part).unwrap_err().kind(), io::ErrorKind::InvalidData);
}
