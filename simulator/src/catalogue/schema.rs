//! What a generated tool takes, gives and says of itself, made anew from its recipe whenever somebody looks.

use serde_json::{Map, Value, json};

use super::{
    dice::Dice,
    tool::Input,
    words::{CHOICES, FIELDS, SENTENCES},
};

/// Bytes of the enumeration in the one tool that fits nowhere.
const HUGE: usize = 2_000_000;
/// Characters of each of its values.
const HUGE_VALUE: usize = 16;

/// How much a tool has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    /// A few KiB, as most tools.
    Usual,
    /// Between one and two KiB.
    Lean,
    /// 2 MB that hardly compress.
    Huge,
}

/// Everything a tool's schemas follow from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    pub(super) seed: u64,
    pub(super) bulk: Bulk,
}

impl Recipe {
    fn dice(&self, about: &str) -> Dice {
        Dice::of(self.seed, about)
    }

    pub(super) fn description(&self, name: &str) -> String {
        let sentences = match self.bulk {
            Bulk::Lean => 1,
            Bulk::Usual | Bulk::Huge => 4,
        };
        let mut dice = self.dice("description");
        format!("{} {}", summary(name), prose(&mut dice, 1, sentences))
    }

    pub(super) fn input(&self) -> Input {
        let mut dice = self.dice("input");
        let count = match self.bulk {
            Bulk::Lean => dice.between(3, 7),
            Bulk::Usual => dice.between(3, 8),
            Bulk::Huge => 2,
        };
        let mut properties = self.fields(&mut dice, count, 0);
        if self.bulk == Bulk::Huge {
            let values =
                (0..HUGE / (HUGE_VALUE + r#""","#.len())).map(|_| Value::from(dice.noise(HUGE_VALUE)));
            let codes: Value = values.collect();
            let mut schema = json!({"type": "string", "description": "One of the provider's codes."});
            schema["enum"] = codes;
            properties.insert("code".to_owned(), schema);
        }
        let required = required(&mut dice, &properties);
        Input { properties, required }
    }

    /// The schema of `data` in the tool's answer.
    pub(super) fn output_data(&self) -> Value {
        let mut dice = self.dice("output");
        let count = match self.bulk {
            Bulk::Lean => dice.between(1, 3),
            Bulk::Usual | Bulk::Huge => dice.between(2, 6),
        };
        let properties = self.fields(&mut dice, count, 0);
        let required = required(&mut dice, &properties);
        // Moved in, because `json!` copies what it is given.
        let mut schema = json!({"type": "object", "title": "Data", "description": "What the tool returned."});
        schema["properties"] = properties.into();
        schema["required"] = required.into();
        schema
    }

    fn fields(&self, dice: &mut Dice, count: usize, depth: usize) -> Map<String, Value> {
        let fields = (0..count).map(|_| {
            let name = *dice.pick(&FIELDS);
            (name.to_owned(), self.field(dice, name, depth))
        });
        fields.collect()
    }

    fn field(&self, dice: &mut Dice, name: &str, depth: usize) -> Value {
        let lean = self.bulk == Bulk::Lean;
        let nested = !lean && depth < 2;
        let mut schema = match dice.between(0, 99) {
            0..10 if nested => self.object(dice, depth),
            10..18 if nested => {
                let mut list = json!({"type": "array"});
                list["items"] = self.object(dice, depth);
                list
            }
            18..30 => {
                json!({"type": "array", "items": {"type": "string"}, "maxItems": dice.between(10, 200)})
            }
            30..42 => json!({"type": "boolean", "default": dice.percent(50)}),
            42..58 => {
                json!({"type": "integer", "minimum": 1, "maximum": dice.between(50, 1_000), "default": 25})
            }
            58..72 => {
                let first = dice.between(0, CHOICES.len() - 8);
                let some = &CHOICES[first..first + dice.between(2, 7)];
                json!({"type": "string", "enum": some, "default": some[0]})
            }
            _ => json!({"type": "string", "nullable": dice.percent(30), "examples": [dice.noise(8)]}),
        };
        let title = title(name);
        schema["description"] = prose(dice, 1, if lean { 1 } else { 2 }).into();
        if !lean && dice.percent(70) {
            schema["human_parameter_name"] = title.clone().into();
            schema["human_parameter_description"] = format!("The {} to use.", title.to_lowercase()).into();
        }
        schema["title"] = title.into();
        schema
    }

    fn object(&self, dice: &mut Dice, depth: usize) -> Value {
        let count = dice.between(2, 4);
        let properties = self.fields(dice, count, depth + 1);
        let required = required(dice, &properties);
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
fn required(dice: &mut Dice, properties: &Map<String, Value>) -> Vec<String> {
    let mut required: Vec<_> = properties.keys().filter(|_| dice.percent(35)).cloned().collect();
    if let Some(first) = required.first().filter(|_| dice.percent(10)).cloned() {
        required.push(first);
    }
    required
}

fn prose(dice: &mut Dice, least: usize, most: usize) -> String {
    let count = dice.between(least, most);
    let sentences: Vec<_> = (0..count).map(|_| *dice.pick(&SENTENCES)).collect();
    sentences.join(" ")
}

/// `created_after` as `Created after`, `CREATE_ISSUE` as `Create issue`.
pub(super) fn title(words: &str) -> String {
    let text = words.to_lowercase().replace('_', " ");
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{}{rest}", first.to_uppercase())
}
