//! A graph as `GraphML`, for networkx, Gephi and yEd.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::graph::Graph;

/// What nodes and edges tell, with the type of each.
const KEYS: [(&str, &str, &str); 9] = [
    ("name", "node", "string"),
    ("type", "node", "string"),
    ("aliases", "node", "string"),
    ("mentions", "node", "long"),
    ("predicate", "edge", "string"),
    ("confidence", "edge", "double"),
    ("sourceMessageId", "edge", "string"),
    ("validFrom", "edge", "string"),
    ("validUntil", "edge", "string"),
];

/// Writes the graph. A relation stands only where both its ends are entities.
pub(super) fn write(graph: &Graph, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(to, r#"<graphml xmlns="http://graphml.graphdrawing.org/xmlns">"#)?;
    for (name, on, kind) in KEYS {
        writeln!(
            to,
            r#"<key id="{name}" for="{on}" attr.name="{name}" attr.type="{kind}"/>"#
        )?;
    }
    writeln!(to, r#"<graph id="channel" edgedefault="directed">"#)?;
    let mut places = BTreeMap::new();
    for (place, entity) in graph.entities.iter().enumerate() {
        places.entry(entity.name.as_str()).or_insert(place);
        write!(to, r#"<node id="n{place}">"#)?;
        data(to, "name", &entity.name)?;
        data(to, "type", &entity.kind.to_string())?;
        if !entity.aliases.is_empty() {
            data(to, "aliases", &entity.aliases.join("; "))?;
        }
        data(to, "mentions", &entity.mentions.to_string())?;
        writeln!(to, "</node>")?;
    }
    for (place, relation) in graph.relations.iter().enumerate() {
        let ends = (
            places.get(relation.subject.as_str()),
            places.get(relation.object.as_str()),
        );
        let (Some(subject), Some(object)) = ends else {
            continue;
        };
        write!(
            to,
            r#"<edge id="e{place}" source="n{subject}" target="n{object}">"#
        )?;
        data(to, "predicate", &relation.predicate.to_string())?;
        data(to, "confidence", &relation.confidence.to_string())?;
        data(to, "sourceMessageId", &relation.source_message_id)?;
        for (key, time) in [
            ("validFrom", relation.valid_from),
            ("validUntil", relation.valid_until),
        ] {
            if let Some(time) = time {
                data(to, key, &time.to_string())?;
            }
        }
        writeln!(to, "</edge>")?;
    }
    writeln!(to, "</graph>\n</graphml>")
}

fn data(to: &mut impl Write, key: &str, text: &str) -> io::Result<()> {
    write!(to, r#"<data key="{key}">{}</data>"#, escaped(text))
}

/// XML has no word for most control characters; they become spaces.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push(' '),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
