//! A catalogue of any size, made from a seed: a stand-in for the real one, which has more than a thousand toolkits.

use std::{collections::HashSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    dice::Dice,
    making::{MANAGED, NO_AUTH, OTHER_SCHEMES, blank},
    schema::{Bulk, Recipe},
    tool::{Content, Tool},
    toolkit::{Category, INITIAL_VERSION, Toolkit, Version},
    words::{KINDS, STEMS},
};

/// The giant with many tools: 950 of them, with 1.6 MB of schemas together.
pub const GIANT_TOOLKIT: &str = "titan";
/// The giant with one tool whose JSON has about 2 MB and stays above 1 MiB when compressed, beside a few usual ones.
pub const HUGE_TOOL_TOOLKIT: &str = "monolith";
/// That tool.
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
    /// How many tools these have together: a few most of them, hundreds some. At least one each.
    pub tools: usize,
    /// Anything; another seed makes another catalogue.
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

    /// A slug nobody has yet, and a category.
    fn name(&self, index: usize, taken: &mut HashSet<String>) -> (String, &'static str) {
        const STEP: usize = 617; // Shares no factor with the number of names, so all come up before one repeats.
        let names = STEMS.len() * KINDS.len();
        let start = Dice::of(self.seed, "names").between(0, names - 1);
        let position = (start + index % names * STEP) % names;
        let (stem, (kind, category)) = (STEMS[position % STEMS.len()], KINDS[position / STEMS.len()]);
        let mut dice = Dice::of(self.seed, &format!("{stem} {kind}"));
        let plain = match dice.between(0, 19) {
            0 => format!("_{}{stem}", dice.between(2, 99)),
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
        let mut dice = Dice::of(self.seed, "tool counts");
        let weights: Vec<_> = (0..self.toolkits)
            .map(|_| match dice.between(0, 99) {
                0..2 => dice.between(100, 400),
                2..10 => dice.between(20, 60),
                10..40 => dice.between(8, 20),
                _ => dice.between(3, 8),
            })
            .collect();
        let weight: usize = weights.iter().sum();
        // One for everybody, the rest by weight, and what rounding left over to the first ones.
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
        let mut dice = Dice::of(self.seed, slug);
        let born = EPOCH + SignedDuration::from_hours(24 * *dice.pick(&[0, 40, 90, 200, 330]));
        let mut toolkit = blank(slug, self.seed, born);
        toolkit.categories = vec![Category {
            id: category.replace(' ', "-"),
            name: category.to_owned(),
        }];
        toolkit.set_auth(
            match dice.between(0, 99) {
                0..4 => NO_AUTH,
                4..54 => MANAGED,
                _ => *dice.pick(&OTHER_SCHEMES),
            },
            &mut dice,
        );
        // The newest version added some and changed others.
        let add = (tools / 8).min(5);
        let first = toolkit.make_tools(tools - add, Bulk::Usual);
        toolkit.versions = vec![Arc::new(Version::new(INITIAL_VERSION.to_owned(), first))];
        let days = i32::try_from(dice.between(30, 500)).unwrap_or_default();
        toolkit.grown(
            add,
            tools / 6,
            born + SignedDuration::from_hours(24 * i64::from(days)),
        )
    }

    fn giant(&self) -> Toolkit {
        let mut toolkit = blank(GIANT_TOOLKIT, self.seed, EPOCH);
        toolkit.set_auth(MANAGED, &mut Dice::of(self.seed, GIANT_TOOLKIT));
        let tools = toolkit.make_tools(GIANT_TOOLS, Bulk::Lean);
        toolkit.versions = vec![Arc::new(Version::new(INITIAL_VERSION.to_owned(), tools))];
        toolkit.grown(0, GIANT_TOOLS / 20, EPOCH + SignedDuration::from_hours(24 * 400))
    }

    fn with_huge_tool(&self) -> Toolkit {
        let mut toolkit = blank(HUGE_TOOL_TOOLKIT, self.seed, EPOCH);
        toolkit.set_auth(MANAGED, &mut Dice::of(self.seed, HUGE_TOOL_TOOLKIT));
        let mut tools = toolkit.make_tools(BESIDE_HUGE, Bulk::Usual);
        let recipe = Recipe {
            seed: self.seed,
            bulk: Bulk::Huge,
        };
        tools.push(Arc::new(Tool::new(
            HUGE_TOOL.to_owned(),
            "Look up code".to_owned(),
            vec!["readOnlyHint".to_owned()],
            Vec::new(),
            false,
            Content::Generated(recipe),
        )));
        toolkit.versions = vec![Arc::new(Version::new(INITIAL_VERSION.to_owned(), tools))];
        toolkit.grown(0, 0, EPOCH + SignedDuration::from_hours(24 * 400))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;
    use crate::catalogue::Catalogue;

    fn made(generated: &GeneratedCatalogue) -> Vec<Toolkit> {
        generated.make(HashSet::new())
    }

    fn tools(toolkits: &[Toolkit]) -> impl Iterator<Item = &Arc<Tool>> {
        toolkits.iter().flat_map(|toolkit| toolkit.latest().tools())
    }

    /// The bytes of a toolkit's schemas in compact JSON.
    fn schema_bytes(toolkit: &Toolkit, slug: &str) -> usize {
        let version = toolkit.latest();
        let shown = version.tool(slug).unwrap().render(toolkit, version);
        shown["input_parameters"].to_string().len() + shown["output_parameters"].to_string().len()
    }

    #[test]
    fn a_full_catalogue_has_the_shape_of_the_real_one() {
        let toolkits = made(&GeneratedCatalogue::default());
        let slugs: HashSet<_> = toolkits.iter().map(|toolkit| toolkit.slug.as_str()).collect();
        assert_eq!((toolkits.len(), slugs.len()), (1_000, 1_000));
        let tool_slugs: HashSet<_> = tools(&toolkits).map(|tool| tool.slug.as_str()).collect();
        assert_eq!((tools(&toolkits).count(), tool_slugs.len()), (12_000, 12_000));

        let mut sizes: Vec<_> = toolkits
            .iter()
            .map(|toolkit| toolkit.latest().tools().len())
            .collect();
        sizes.sort_unstable();
        assert!((3..=10).contains(&sizes[500]), "median {}", sizes[500]);
        assert!(sizes[999] > 150, "largest {}", sizes[999]);
        assert!(sizes[0] >= 1);

        let share = |of: fn(&Toolkit) -> bool| toolkits.iter().filter(|toolkit| of(toolkit)).count();
        assert!((10..100).contains(&share(Toolkit::no_auth)));
        assert!((10..100).contains(&share(|toolkit| toolkit.slug.starts_with('_'))));
        assert!(share(|toolkit| toolkit.slug.trim_start_matches('_').contains('_')) > 200);
        assert!(share(|toolkit| !toolkit.composio_managed_auth_schemes.is_empty()) > 300);
        assert!((100..1_000).contains(&tools(&toolkits).filter(|tool| tool.deprecated).count()));
        let read_only = |tool: &&Arc<Tool>| tool.tags.iter().any(|tag| tag == "readOnlyHint");
        assert!(tools(&toolkits).filter(read_only).count() > 2_000);
    }

    #[test]
    fn schemas_are_nested_a_few_kib_and_have_the_flaws_of_real_ones() {
        let toolkits = made(&GeneratedCatalogue {
            toolkits: 50,
            tools: 600,
            ..GeneratedCatalogue::default()
        });
        let mut text = String::new();
        let (mut bytes, mut duplicates) = (0, 0);
        for toolkit in &toolkits {
            for tool in toolkit.latest().tools() {
                bytes += schema_bytes(toolkit, &tool.slug);
                let input = tool.input();
                let distinct: HashSet<_> = input.required.iter().collect();
                assert!(
                    distinct.iter().all(|name| input.properties.contains_key(*name)),
                    "{}",
                    tool.slug
                );
                duplicates += usize::from(distinct.len() < input.required.len());
                text += &tool.render(toolkit, toolkit.latest()).to_string();
            }
        }
        assert!(
            (2_000..6_000).contains(&(bytes / 600)),
            "{} bytes on average",
            bytes / 600
        );
        assert!((6..200).contains(&duplicates), "{duplicates} with a duplicate");
        for part in [
            r#""items":{"additionalProperties":false"#,
            r#""enum":"#,
            "human_parameter_description",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        let small = GeneratedCatalogue {
            toolkits: 20,
            tools: 100,
            ..GeneratedCatalogue::default()
        };
        let shown = |generated: &GeneratedCatalogue| {
            let toolkits = made(generated);
            let details: Vec<_> = toolkits
                .iter()
                .flat_map(|toolkit| {
                    let version = toolkit.latest();
                    let tools = version.tools().iter().map(|tool| tool.render(toolkit, version));
                    tools.chain([toolkit.detail(version)])
                })
                .collect();
            Value::from(details).to_string()
        };
        assert_eq!(shown(&small), shown(&small));
        assert_ne!(
            shown(&small),
            shown(&GeneratedCatalogue {
                seed: 2,
                ..small.clone()
            })
        );
        // A change here changes what benchmarks measure: make it knowingly.
        let slugs: Vec<_> = made(&small)
            .iter()
            .take(3)
            .map(|toolkit| toolkit.slug.clone())
            .collect();
        assert_eq!(slugs, ["fern_maps", "orchid_analytics", "copper_events"]);
    }

    #[test]
    fn tools_are_shared_out_exactly_whatever_the_numbers() {
        for (toolkits, tools, expected) in [
            (0, 0, 0),
            (0, 10, 0),
            (3, 0, 3),
            (3, 3, 3),
            (7, 100, 100),
            (45, 1_250, 1_250),
        ] {
            let generated = GeneratedCatalogue {
                toolkits,
                tools,
                ..GeneratedCatalogue::default()
            };
            let counts = generated.tool_counts();
            assert_eq!(
                (counts.len(), counts.iter().sum::<usize>()),
                (toolkits, expected),
                "{tools} tools"
            );
        }
    }

    #[test]
    fn earlier_versions_of_generated_toolkits_differ() {
        let toolkits = made(&GeneratedCatalogue {
            toolkits: 1,
            tools: 24,
            ..GeneratedCatalogue::default()
        });
        let toolkit = &toolkits[0];
        let names: Vec<_> = toolkit.version_names().collect();
        assert_eq!((names.len(), names[1]), (2, INITIAL_VERSION));
        let tools_of = |version| toolkit.resolve(version).unwrap().tools().len();
        assert_eq!((tools_of("latest"), tools_of(INITIAL_VERSION)), (24, 21));
    }

    #[test]
    fn giants_are_as_big_as_promised() {
        let generated = GeneratedCatalogue {
            toolkits: 0,
            tools: 0,
            giants: true,
            ..GeneratedCatalogue::default()
        };
        let catalogue = Catalogue::new(Some(&generated)).unwrap();
        let giant = catalogue.toolkit(GIANT_TOOLKIT).unwrap();
        let tools = giant.latest().tools();
        let bytes: usize = tools.iter().map(|tool| schema_bytes(&giant, &tool.slug)).sum();
        assert_eq!(tools.len(), 950);
        assert!((1_500_000..1_700_000).contains(&bytes), "{bytes} bytes");

        let monolith = catalogue.toolkit(HUGE_TOOL_TOOLKIT).unwrap();
        assert_eq!(monolith.latest().tools().len(), 5);
        let bytes = schema_bytes(&monolith, HUGE_TOOL);
        assert!((1_950_000..2_050_000).contains(&bytes), "{bytes} bytes");
        // Bits per character of the values, the bound no compression without a dictionary of them gets below.
        let shown = monolith.latest().tool(HUGE_TOOL).unwrap().input();
        let values = shown.properties["code"]["enum"].as_array().unwrap();
        let mut counts: HashMap<char, f64> = HashMap::new();
        for letter in values.iter().flat_map(|value| value.as_str().unwrap().chars()) {
            *counts.entry(letter).or_default() += 1.0;
        }
        let total: f64 = counts.values().sum();
        let bits: f64 = counts
            .values()
            .map(|count| count / total * (total / count).log2())
            .sum();
        assert!(bits * total / 8.0 > 1_200_000.0, "{bits} bits a character");
        let distinct: HashSet<_> = values.iter().collect();
        assert_eq!(distinct.len(), values.len());
    }
}
