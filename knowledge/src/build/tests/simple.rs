//! Stages whose answers change with every byte that they are given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::build::{GraphInput, Stages, WikiInput};
use crate::digest;
use crate::extract::{Context, Extracted, Extractor, Mention};
use crate::fact::{Fact, FactType, Importance};
use crate::graph::{Entity, EntityType, Graph, GraphMention, Predicate, Relation};
use crate::message::Message;
use crate::wiki;

pub(super) struct Simple;

struct Everything {
    people: BTreeMap<String, String>,
}

impl Extractor for Everything {
    fn extract(&self, message: &Message, context: &Context<'_>) -> Extracted {
        if message.bot {
            return Extracted::default();
        }
        let mut around = String::new();
        for messages in [context.earlier, context.later, context.before, context.after] {
            for message in messages {
                let _ = write!(around, "{} {};", message.id, message.text);
            }
            around.push('|');
        }
        let sizes = [context.earlier, context.later, context.before, context.after].map(<[_]>::len);
        let name = self.people.get(&message.author.id).cloned().unwrap_or_default();
        let fact = Fact {
            id: digest::hex(format!("{}{}", message.id, message.text).as_bytes()),
            text: format!(
                "{} [{name} {sizes:?} {}]",
                message.text,
                digest::hex(around.as_bytes())
            ),
            kind: FactType::Observation,
            author: name.clone(),
            time: message.time,
            source_message_id: message.id.clone(),
            permalink: message.permalink.clone(),
            tags: vec!["tag".into(); message.id.len() % 3],
            entities: vec![name.clone()],
            importance: Importance::Low,
            quality: 1.0 / 3.0,
            owner: None,
            due: None,
            answers: None,
            supersedes: message.text.strip_prefix("scrap ").map(ToOwned::to_owned),
            superseded_by: None,
        };
        let mention = Mention {
            name: name.clone(),
            kind: EntityType::Person,
            certainty: 90,
            source_message_id: message.id.clone(),
        };
        let relation = Relation {
            subject: name,
            predicate: Predicate::WorksOn,
            object: "everything <&> \u{1}".into(),
            confidence: 0.8,
            source_message_id: message.id.clone(),
            valid_from: Some(message.time),
            valid_until: None,
        };
        Extracted {
            facts: vec![fact],
            mentions: vec![mention],
            relations: vec![relation],
        }
    }
}

impl Stages for Simple {
    fn version(&self) -> String {
        "simple".into()
    }

    fn extractor(&self, people: &BTreeMap<String, String>) -> Box<dyn Extractor + '_> {
        Box::new(Everything {
            people: people.clone(),
        })
    }

    fn graph(&self, input: GraphInput<'_>) -> Graph {
        let replies = input
            .replies
            .iter()
            .map(|reply| format!("{} {}", reply.message, reply.root));
        let order: Vec<String> = input
            .mentions
            .iter()
            .map(|mention| mention.source_message_id)
            .chain(replies)
            .collect();
        let mut entities = vec![Entity {
            name: "everything <&> \u{1}".into(),
            kind: EntityType::Topic,
            aliases: vec![digest::hex(order.concat().as_bytes()), "all".into()],
            mentions: input.facts.len() as u64,
        }];
        let names: BTreeSet<_> = input.mentions.iter().map(|mention| mention.name).collect();
        entities.extend(names.into_iter().map(|name| Entity {
            name,
            kind: EntityType::Person,
            aliases: Vec::new(),
            mentions: 1,
        }));
        let mentions = input.mentions.iter().map(|mention| GraphMention {
            entity: mention.name,
            source_message_id: mention.source_message_id,
        });
        Graph {
            entities,
            relations: input.relations.to_vec(),
            mentions: mentions.collect(),
            topics: Vec::new(),
        }
    }

    fn wiki(&self, source: &WikiInput<'_>) -> Vec<wiki::Page> {
        let mut pages: BTreeMap<String, String> = BTreeMap::new();
        for fact in source.facts.iter() {
            let slug = fact.author.to_lowercase().replace(' ', "-");
            let page = pages.entry(format!("people/{slug}.md")).or_default();
            // Without its surroundings, so that a message changes the page of its author alone.
            let _ = writeln!(page, "- {}", fact.text.split(" [").next().unwrap());
        }
        let about = format!(
            "{} {} {} {:?}",
            source.channel, source.messages, source.people, source.gaps
        );
        pages.insert("index.md".into(), about);
        pages
            .into_iter()
            .map(|(path, content)| wiki::Page { path, content })
            .collect()
    }
}
