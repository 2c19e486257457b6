//! Descriptions and schemas of generated tools. They are made from a seed on every request, so they need no memory.

use serde_json::{Map, Value, json};

use super::{
    random::SeededRandom,
    tool::Input,
    words::{CHOICES, FIELDS, SENTENCES},
};

/// Bytes of the enumeration in the one tool whose schema is larger than usual limits.
const HUGE: usize = 2_000_000;
/// Characters of each of its values.
const HUGE_VALUE: usize = 16;

/// How large the schemas of a tool are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaSize {
    /// A few KiB, as most tools.
    Usual,
    /// Between one and two KiB.
    Small,
    /// 2 MB that hardly compress.
    Huge,
}

/// What the schemas of a tool are generated from.
#[derive(Clone, Copy, Debug)]
pub(super) struct SchemaSource {
    pub(super) seed: u64,
    pub(super) size: SchemaSize,
}

impl SchemaSource {
    fn random(&self, about: &str) -> SeededRandom {
        SeededRandom::new(self.seed, about)
    }

    pub(super) fn description(&self, name: &str) -> String {
        let sentences = match self.size {
            SchemaSize::Small => 1,
            SchemaSize::Usual | SchemaSize::Huge => 4,
        };
        let mut random = self.random("description");
        format!("{} {}", summary(name), prose(&mut random, 1, sentences))
    }

    pub(super) fn input(&self) -> Input {
        let mut random = self.random("input");
        let count = match self.size {
            SchemaSize::Small => random.between(3, 7),
            SchemaSize::Usual => random.between(3, 8),
            SchemaSize::Huge => 2,
        };
        let mut properties = self.fields(&mut random, count, 0);
        if self.size == SchemaSize::Huge {
            let values =
                (0..HUGE / (HUGE_VALUE + r#""","#.len())).map(|_| Value::from(random.noise(HUGE_VALUE)));
            let codes: Value = values.collect();
            let mut schema = json!({"type": "string", "description": "One of the provider's codes."});
            schema["enum"] = codes;
            properties.insert("code".to_owned(), schema);
        }
        let required = required(&mut random, &properties);
        Input { properties, required }
    }

    /// The schema of `data` in the tool's response.
    pub(super) fn output_data(&self) -> Value {
        let mut random = self.random("output");
        let count = match self.size {
            SchemaSize::Small => random.between(1, 3),
            SchemaSize::Usual | SchemaSize::Huge => random.between(2, 6),
        };
        let properties = self.fields(&mut random, count, 0);
        let required = required(&mut random, &properties);
        // Moved in, because `json!` copies what it is given.
        let mut schema = json!({"type": "object", "title": "Data", "description": "What the tool returned."});
        schema["properties"] = properties.into();
        schema["required"] = required.into();
        schema
    }

    fn fields(&self, random: &mut SeededRandom, count: usize, depth: usize) -> Map<String, Value> {
        let fields = (0..count).map(|_| {
            let name = *random.pick(&FIELDS);
            (name.to_owned(), self.field(random, name, depth))
        });
        fields.collect()
    }

    fn field(&self, random: &mut SeededRandom, name: &str, depth: usize) -> Value {
        let small = self.size == SchemaSize::Small;
        let nested = !small && depth < 2;
        let mut schema = match random.between(0, 99) {
            0..10 if nested => self.object(random, depth),
            10..18 if nested => {
                let mut list = json!({"type": "array"});
                list["items"] = self.object(random, depth);
                list
            }
            18..30 => {
                json!({"type": "array", "items": {"type": "string"}, "maxItems": random.between(10, 200)})
            }
            30..42 => json!({"type": "boolean", "default": random.percent(50)}),
            42..58 => {
                json!({"type": "integer", "minimum": 1, "maximum": random.between(50, 1_000), "default": 25})
            }
            58..72 => {
                let first = random.between(0, CHOICES.len() - 8);
                let some = &CHOICES[first..first + random.between(2, 7)];
                json!({"type": "string", "enum": some, "default": some[0]})
            }
            _ => json!({"type": "string", "nullable": random.percent(30), "examples": [random.noise(8)]}),
        };
        let title = title(name);
        schema["description"] = prose(random, 1, if small { 1 } else { 2 }).into();
        if !small && random.percent(70) {
            schema["human_parameter_name"] = title.clone().into();
            schema["human_parameter_description"] = format!("The {} to use.", title.to_lowercase()).into();
        }
        schema["title"] = title.into();
        schema
    }

    fn object(&self, random: &mut SeededRandom, depth: usize) -> Value {
        let count = random.between(2, 4);
        let properties = self.fields(random, count, depth + 1);
        let required = required(random, &properties);
        let mut schema = json!({"type": "object", "additionalProperties": false});
        schema["properties"] = properties.into();
        schema["required"] = required.into();
        schema
    }
}

/// What a tool of that name does, in one sentence.
pub(super) fn summary(name: &str) -> String {
    format!("{name} in the connected workspace.")
}

/// Some of the properties; now and then one of them twice, as Composio has it.
fn required(random: &mut SeededRandom, properties: &Map<String, Value>) -> Vec<String> {
    let mut required: Vec<_> = properties
        .keys()
        .filter(|_| random.percent(35))
        .cloned()
        .collect();
    if let Some(first) = required.first().filter(|_| random.percent(10)).cloned() {
        required.push(first);
    }
    required
}

fn prose(random: &mut SeededRandom, least: usize, most: usize) -> String {
    let count = random.between(least, most);
    let sentences: Vec<_> = (0..count).map(|_| *random.pick(&SENTENCES)).collect();
    sentences.join(" ")
}

/// `created_after` as `Created after`, `CREATE_ISSUE` as `Create issue`.
pub(super) fn title(words: &str) -> String {
    let text = words.to_lowercase().replace('_', " ");
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{}{rest}", first.to_uppercase())
}
