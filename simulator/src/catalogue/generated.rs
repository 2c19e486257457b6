//! A catalogue of any size, made from a seed: a stand-in for the real one, which has more than a thousand toolkits.

use std::{collections::HashSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    new_toolkit::{MANAGED, NO_AUTH, OTHER_SCHEMES, empty_toolkit},
    random::SeededRandom,
    schema::{SchemaSize, SchemaSource},
    tool::{Content, Tool},
    toolkit::{Category, INITIAL_VERSION, Toolkit, Version},
    words::{KINDS, STEMS},
};

/// The giant with many tools: 950 of them, with 1.6 MB of schemas together.
pub const GIANT_TOOLKIT: &str = "titan";
/// The giant with one tool whose JSON has about 2 MB and stays above 1 MiB when compressed, beside a few usual ones.
pub const HUGE_TOOL_TOOLKIT: &str = "monolith";
/// The tool of 2 MB in [`HUGE_TOOL_TOOLKIT`].
pub const HUGE_TOOL: &str = "MONOLITH_LOOK_UP_CODE";

/// Tools of [`GIANT_TOOLKIT`].
const GIANT_TOOLS: usize = 950;
/// Usual tools of [`HUGE_TOOL_TOOLKIT`].
const BESIDE_HUGE: usize = 4;
/// When generated toolkits begin: 2025-01-01.
const EPOCH: Timestamp = Timestamp::constant(1_735_689_600, 0);

/// Toolkits beside the built-in ones. The same values make the same catalogue, down to the last byte of every schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedCatalogue {
    /// How many toolkits, giants not counted.
    pub toolkits: usize,
    /// How many tools these have together: most have a few, some have hundreds, and each has at least one.
    pub tools: usize,
    /// Another seed makes another catalogue.
    pub seed: u64,
    /// Adds two more toolkits: [`GIANT_TOOLKIT`] and [`HUGE_TOOL_TOOLKIT`].
    pub giants: bool,
}

impl Default for GeneratedCatalogue {
    /// The size of Composio's own catalogue: 1,000 toolkits with 12,000 tools.
    fn default() -> Self {
        Self {
            toolkits: 1_000,
            tools: 12_000,
            seed: 1,
            giants: false,
        }
    }
}

impl GeneratedCatalogue {
    /// The toolkits, in the default order of lists; the giants come first. `taken`: slugs not to use.
    pub(super) fn make(&self, mut taken: HashSet<String>) -> Vec<Toolkit> {
        let mut toolkits = Vec::new();
        if self.giants {
            toolkits.push(self.giant());
            toolkits.push(self.with_huge_tool());
            taken.extend(toolkits.iter().map(|toolkit| toolkit.slug.clone()));
        }
        for (index, tools) in self.tool_counts().into_iter().enumerate() {
            let (slug, category) = self.name(index, &mut taken);
            toolkits.push(self.usual(&slug, category, tools));
        }
        toolkits
    }

    /// An unused slug, and a category.
    fn name(&self, index: usize, taken: &mut HashSet<String>) -> (String, &'static str) {
        const STEP: usize = 617; // Shares no factor with the number of names, so all come up before one repeats.
        let names = STEMS.len() * KINDS.len();
        let start = SeededRandom::new(self.seed, "names").between(0, names - 1);
        let position = (start + index % names * STEP) % names;
        let (stem, (kind, category)) = (STEMS[position % STEMS.len()], KINDS[position / STEMS.len()]);
        let mut random = SeededRandom::new(self.seed, &format!("{stem} {kind}"));
        let plain = match random.between(0, 19) {
            0 => format!("_{}{stem}", random.between(2, 99)),
            1..10 => format!("{stem}_{kind}"),
            _ => format!("{stem}{kind}"),
        };
        let mut slug = plain.clone();
        let mut number = 1;
        while !taken.insert(slug.clone()) {
            number += 1;
            slug = format!("{plain}_{number}");
        }
        (slug, category)
    }

    /// How many tools each toolkit has: skewed, and exactly [`Self::tools`] together.
    fn tool_counts(&self) -> Vec<usize> {
        let mut random = SeededRandom::new(self.seed, "tool counts");
        let weights: Vec<_> = (0..self.toolkits)
            .map(|_| match random.between(0, 99) {
                0..2 => random.between(100, 400),
                2..10 => random.between(20, 60),
                10..40 => random.between(8, 20),
                _ => random.between(3, 8),
            })
            .collect();
        let weight: usize = weights.iter().sum();
        // One for each toolkit, the rest by weight, and the remainder of rounding to the first ones.
        let spare = self.tools.saturating_sub(self.toolkits);
        let mut counts: Vec<_> = weights
            .iter()
            .map(|each| 1 + spare * each / weight.max(1))
            .collect();
        let left = (spare + self.toolkits).saturating_sub(counts.iter().sum());
        counts.iter_mut().take(left).for_each(|count| *count += 1);
        counts
    }

    fn usual(&self, slug: &str, category: &str, tools: usize) -> Toolkit {
        let mut random = SeededRandom::new(self.seed, slug);
        let created_at = EPOCH + SignedDuration::from_hours(24 * *random.pick(&[0, 40, 90, 200, 330]));
        let mut toolkit = empty_toolkit(slug, self.seed, created_at);
        toolkit.categories = vec![Category {
            id: category.replace(' ', "-"),
            name: category.to_owned(),
        }];
        toolkit.set_auth(
            match random.between(0, 99) {
                0..4 => NO_AUTH,
                4..54 => MANAGED,
                _ => *random.pick(&OTHER_SCHEMES),
            },
            &mut random,
        );
        // The newest version added some and changed others.
        let add = (tools / 8).min(5);
        let first = toolkit.make_tools(tools - add, SchemaSize::Usual);
        toolkit.versions = vec![Arc::new(Version::new(INITIAL_VERSION.to_owned(), first))];
        let days = i32::try_from(random.between(30, 500)).unwrap_or_default();
        toolkit.with_release(
            add,
            tools / 6,
            created_at + SignedDuration::from_hours(24 * i64::from(days)),
        )
    }

    fn giant(&self) -> Toolkit {
        let mut toolkit = empty_toolkit(GIANT_TOOLKIT, self.seed, EPOCH);
        toolkit.set_auth(MANAGED, &mut SeededRandom::new(self.seed, GIANT_TOOLKIT));
        let tools = toolkit.make_tools(GIANT_TOOLS, SchemaSize::Small);
        toolkit.versions = vec![Arc::new(Version::new(INITIAL_VERSION.to_owned(), tools))];
        toolkit.with_release(0, GIANT_TOOLS / 20, EPOCH + SignedDuration::from_hours(24 * 400))
    }

    fn with_huge_tool(&self) -> Toolkit {
        let mut toolkit = empty_toolkit(HUGE_TOOL_TOOLKIT, self.seed, EPOCH);
        toolkit.set_auth(MANAGED, &mut SeededRandom::new(self.seed, HUGE_TOOL_TOOLKIT));
        let mut tools = toolkit.make_tools(BESIDE_HUGE, SchemaSize::Usual);
        let source = SchemaSource {
            seed: self.seed,
            size: SchemaSize::Huge,
        };
        tools.push(Arc::new(Tool::new(
            HUGE_TOOL.to_owned(),
            "Look up code".to_owned(),
            vec!["readOnlyHint".to_owned()],
            Vec::new(),
            false,
            Content::Generated(source),
        )));
        toolkit.versions = vec![Arc::new(Version::new(INITIAL_VERSION.to_owned(), tools))];
        toolkit.with_release(0, 0, EPOCH + SignedDuration::from_hours(24 * 400))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn generated(toolkits: usize, tools: usize) -> GeneratedCatalogue {
        GeneratedCatalogue {
            toolkits,
            tools,
            ..GeneratedCatalogue::default()
        }
    }

    fn make(generated: &GeneratedCatalogue) -> Vec<Toolkit> {
        generated.make(HashSet::new())
    }

    /// Every tool of the latest versions, as the API shows it.
    fn rendered(toolkits: &[Toolkit]) -> Vec<Value> {
        let render = |toolkit: &Toolkit| {
            let version = toolkit.latest();
            let tools = version.tools().iter().map(|tool| tool.render(toolkit, version));
            tools.collect::<Vec<_>>()
        };
        toolkits.iter().flat_map(render).collect()
    }

    fn schema_bytes(tools: &[Value]) -> usize {
        let bytes = |tool: &Value| {
            tool["input_parameters"].to_string().len() + tool["output_parameters"].to_string().len()
        };
        tools.iter().map(bytes).sum()
    }

    #[test]
    fn a_full_catalogue_has_the_shape_of_the_real_one() {
        let toolkits = make(&GeneratedCatalogue::default());
        let mut sizes: Vec<_> = toolkits
            .iter()
            .map(|toolkit| toolkit.latest().tools().len())
            .collect();
        sizes.sort_unstable();
        assert!((3..=10).contains(&sizes[500]), "median {}", sizes[500]);
        assert!(sizes[999] > 150, "largest {}", sizes[999]);
        let count = |of: fn(&Toolkit) -> bool| toolkits.iter().filter(|toolkit| of(toolkit)).count();
        assert!((10..100).contains(&count(Toolkit::no_auth)));
        assert!((10..100).contains(&count(|toolkit| toolkit.slug.starts_with('_'))));
        assert!(count(|toolkit| toolkit.slug.trim_start_matches('_').contains('_')) > 200);

        let tools = rendered(&toolkits[..100]);
        let average = schema_bytes(&tools) / tools.len();
        assert!((2_000..6_000).contains(&average), "{average} bytes on average");
        let text = Value::from(tools.clone()).to_string();
        for part in [
            r#""items":{"additionalProperties":false"#,
            r#""enum":"#,
            "human_parameter_description",
            r#""is_deprecated":true"#,
            "readOnlyHint",
        ] {
            assert!(text.contains(part), "{part}");
        }
        let repeats = |tool: &&Value| {
            let required = tool["input_parameters"]["required"].as_array().unwrap();
            required.iter().collect::<HashSet<_>>().len() < required.len()
        };
        assert!(
            tools.iter().filter(repeats).count() > 5,
            "real schemas have this flaw"
        );
    }

    #[test]
    fn the_seed_decides_everything() {
        let small = generated(20, 100);
        let other = GeneratedCatalogue {
            seed: 2,
            ..small.clone()
        };
        assert_eq!(rendered(&make(&small)), rendered(&make(&small)));
        assert_ne!(rendered(&make(&small)), rendered(&make(&other)));
        let toolkits = make(&small);
        let slugs: Vec<_> = toolkits[..3]
            .iter()
            .map(|toolkit| toolkit.slug.as_str())
            .collect();
        // Another outcome changes what benchmarks measure.
        assert_eq!(slugs, ["fern_maps", "orchid_analytics", "copper_events"]);
    }

    #[test]
    fn the_number_of_tools_is_exact_with_at_least_one_for_each_toolkit() {
        for (toolkits, tools, expected) in [(0, 10, 0), (3, 0, 3), (7, 100, 100), (45, 1_250, 1_250)] {
            let counts = generated(toolkits, tools).tool_counts();
            assert_eq!((counts.len(), counts.iter().sum::<usize>()), (toolkits, expected));
        }
    }

    #[test]
    fn giants_are_as_big_as_promised() {
        let toolkits = make(&GeneratedCatalogue {
            giants: true,
            ..generated(0, 0)
        });
        let [titan, monolith] = toolkits.as_slice() else {
            panic!("{toolkits:?}")
        };
        let tools = rendered(std::slice::from_ref(titan));
        assert_eq!(tools.len(), 950);
        assert!((1_500_000..1_700_000).contains(&schema_bytes(&tools)));
        let tools = rendered(std::slice::from_ref(monolith));
        assert_eq!(tools.len(), 5);
        assert!((1_950_000..2_100_000).contains(&schema_bytes(&tools)));
        let huge = tools.iter().find(|tool| tool["slug"] == HUGE_TOOL).unwrap();
        let values = huge["input_parameters"]["properties"]["code"]["enum"]
            .as_array()
            .unwrap();
        // Random values of 64 different characters hold 6 bits a character, which no compression gets below.
        let characters: usize = values.iter().map(|value| value.as_str().unwrap().len()).sum();
        assert!(characters * 6 / 8 > 1_048_576);
        assert_eq!(values.iter().collect::<HashSet<_>>().len(), values.len());
    }
}
