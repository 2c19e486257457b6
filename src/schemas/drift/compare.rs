//! Compares two JSON Schemas by what they mean: whether they are the same, and if not, what may break callers.
//!
//! Of inputs, whatever was accepted must still be. Of outputs it is the other way round: whatever comes now must have been
//! promised before. Nodes are compared two at a time, each pair once, so that schemas which refer to themselves end.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::expansion::direct;
use super::shape::{Alternative, Schemas, Shape, is_lower_bound, is_stricter, type_names};

/// Most pairs of nodes that are compared for one tool. What lies beyond is taken for changed, but not for breaking.
const MAX_PAIRS: usize = 10_000;

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 64;

/// Which side of a tool a schema describes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    /// What callers send.
    Input,
    /// What they get.
    Output,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Whether two schemas mean the same.
pub(super) fn is_same(old: &Value, new: &Value) -> bool {
    if old == new {
        return true;
    }
    let mut sameness = Sameness {
        roots: (old, new),
        seen: HashSet::new(),
    };
    sameness.holds(&vec![old], &vec![new], 0)
}

/// What may break callers, in words.
pub(super) fn breaking(side: Side, old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        side,
        roots: (old, new),
        seen: HashSet::new(),
        found: Vec::new(),
        pairs: 0,
    };
    comparison.nodes(&vec![old], &vec![new], "", 0);
    let mut told = BTreeSet::new();
    comparison.found.retain(|what| told.insert(what.clone()));
    comparison.found
}

type Pair = (Vec<*const Value>, Vec<*const Value>);

fn pair(old: &Schemas<'_>, new: &Schemas<'_>) -> Pair {
    let places = |schemas: &Schemas<'_>| schemas.iter().map(|schema| std::ptr::from_ref(*schema)).collect();
    (places(old), places(new))
}

struct Sameness<'a> {
    roots: (&'a Value, &'a Value),
    seen: HashSet<Pair>,
}

impl<'a> Sameness<'a> {
    fn holds(&mut self, old: &Schemas<'a>, new: &Schemas<'a>, depth: usize) -> bool {
        if depth == MAX_DEPTH || self.seen.len() == MAX_PAIRS {
            return false;
        }
        let (old, new) = (&direct(self.roots.0, old), &direct(self.roots.1, new));
        if !self.seen.insert(pair(old, new)) {
            return true;
        }
        let (old, new) = (Shape::of(self.roots.0, old), Shape::of(self.roots.1, new));
        old.notes == new.notes
            && old.by_type.keys().eq(new.by_type.keys())
            && old.by_type.iter().all(|(bit, old)| {
                let new = &new.by_type[bit];
                old.len() == new.len()
                    && old
                        .iter()
                        .all(|old| new.iter().any(|new| self.alternatives(old, new, depth)))
            })
    }

    fn alternatives(&mut self, old: &Alternative<'a>, new: &Alternative<'a>, depth: usize) -> bool {
        let all = |this: &mut Self, old: &[Schemas<'a>], new: &[Schemas<'a>]| {
            old.len() == new.len()
                && old
                    .iter()
                    .zip(new)
                    .all(|(old, new)| this.holds(old, new, depth + 1))
        };
        old.values == new.values
            && old.bounds == new.bounds
            && old.rules == new.rules
            && old.required == new.required
            && old.properties.keys().eq(new.properties.keys())
            && old.additional.is_some() == new.additional.is_some()
            && old
                .properties
                .iter()
                .all(|(name, old)| self.holds(old, &new.properties[name], depth + 1))
            && all(self, &old.first_items, &new.first_items)
            && self.holds(&old.items, &new.items, depth + 1)
            && match (&old.additional, &new.additional) {
                (Some(old), Some(new)) => self.holds(old, new, depth + 1),
                _ => true,
            }
    }
}

struct Comparison<'a> {
    side: Side,
    roots: (&'a Value, &'a Value),
    seen: HashSet<Pair>,
    found: Vec<String>,
    pairs: usize,
}

impl<'a> Comparison<'a> {
    fn nodes(&mut self, old: &Schemas<'a>, new: &Schemas<'a>, path: &str, depth: usize) {
        let (old, new) = (&direct(self.roots.0, old), &direct(self.roots.1, new));
        if depth == MAX_DEPTH || self.pairs == MAX_PAIRS || !self.seen.insert(pair(old, new)) {
            return;
        }
        self.pairs += 1;
        let (old, new) = (Shape::of(self.roots.0, old), Shape::of(self.roots.1, new));
        // What there has to be room for, and where.
        let (inner, outer) = match self.side {
            Side::Input => (&old, &new),
            Side::Output => (&new, &old),
        };
        if inner.by_type.keys().any(|bit| !outer.by_type.contains_key(bit)) {
            let names = |shape: &Shape<'_>| type_names(shape.by_type.keys().copied());
            self.find(path, &format!("changed from {} to {}", names(&old), names(&new)));
        }
        for (bit, alternatives) in &inner.by_type {
            let Some(others) = outer.by_type.get(bit) else {
                continue;
            };
            for alternative in alternatives {
                self.best_match(alternative, others, path, depth);
            }
        }
    }

    /// What is missing in the one of `outer` that comes closest.
    fn best_match(&mut self, inner: &Alternative<'a>, outer: &[Alternative<'a>], path: &str, depth: usize) {
        if let [only] = outer {
            return self.alternatives(inner, only, path, depth);
        }
        let before = (self.found.clone(), self.seen.clone());
        let mut best: Option<(Vec<String>, HashSet<Pair>)> = None;
        for outer in outer {
            (self.found, self.seen) = before.clone();
            self.alternatives(inner, outer, path, depth);
            if best
                .as_ref()
                .is_none_or(|(found, _)| self.found.len() < found.len())
            {
                best = Some((std::mem::take(&mut self.found), std::mem::take(&mut self.seen)));
            }
            if best
                .as_ref()
                .is_some_and(|(found, _)| found.len() == before.0.len())
            {
                break;
            }
        }
        (self.found, self.seen) = best.unwrap_or(before);
    }

    fn alternatives(&mut self, inner: &Alternative<'a>, outer: &Alternative<'a>, path: &str, depth: usize) {
        self.values(inner, outer, path);
        let (old, new) = match self.side {
            Side::Input => {
                self.limits(inner, outer, path);
                (inner, outer)
            }
            Side::Output => (outer, inner),
        };
        self.properties(old, new, path, depth);
        for (place, old) in old.first_items.iter().enumerate() {
            let new = new.first_items.get(place).unwrap_or(&new.items);
            self.nodes(old, new, &format!("{path}[{place}]."), depth + 1);
        }
        self.nodes(&old.items, &new.items, &format!("{path}[]."), depth + 1);
    }

    fn values(&mut self, inner: &Alternative<'a>, outer: &Alternative<'a>, path: &str) {
        let Some(allowed) = &outer.values else { return };
        let Some(values) = &inner.values else {
            let what = match self.side {
                Side::Input => "accepts only some values now",
                Side::Output => "may be any value now",
            };
            return self.find(path, what);
        };
        for value in values.difference(allowed) {
            let what = match self.side {
                Side::Input => format!("does not accept {value} any more"),
                Side::Output => format!("may be {value} now"),
            };
            self.find(path, &what);
        }
    }

    /// What an input has to keep to and had not.
    fn limits(&mut self, old: &Alternative<'a>, new: &Alternative<'a>, path: &str) {
        for (keyword, bound) in &new.bounds {
            let before = old.bounds.get(keyword);
            // Listed values keep to the bound or they do not, and are compared one by one.
            if old.values.is_none() && before.is_none_or(|before| is_stricter(keyword, *bound, *before)) {
                let limit = if is_lower_bound(keyword) {
                    "at least"
                } else {
                    "at most"
                };
                let excluded = if bound.1 { " (itself excluded)" } else { "" };
                self.find(
                    path,
                    &format!("is limited more: {keyword}, {limit} {}{excluded}", bound.0),
                );
            }
        }
        for rule in new.rules.difference(&old.rules) {
            self.find(path, &format!("is limited more: {rule}"));
        }
    }

    fn properties(&mut self, old: &Alternative<'a>, new: &Alternative<'a>, path: &str, depth: usize) {
        let side = self.side.name();
        match self.side {
            Side::Input => {
                let found = new.required.difference(&old.required);
                self.found
                    .extend(found.map(|name| format!("{side} {path}{name} became required")));
                if old.additional.is_some() && new.additional.is_none() {
                    self.find(path, "accepts no other properties any more");
                }
            }
            Side::Output => {
                let found = old.required.difference(&new.required);
                let still_there = found.filter(|name| new.properties.contains_key(*name));
                self.found
                    .extend(still_there.map(|name| format!("{side} {path}{name} may be missing now")));
            }
        }
        for (name, before) in &old.properties {
            match (new.properties.get(name), &new.additional) {
                (Some(after), _) => self.nodes(before, after, &format!("{path}{name}."), depth + 1),
                (None, Some(further)) if !further.is_empty() => {
                    self.nodes(before, further, &format!("{path}{name}."), depth + 1);
                }
                _ => self.found.push(format!("{side} {path}{name} vanished")),
            }
        }
        if let (Some(before), Some(after)) = (&old.additional, &new.additional) {
            self.nodes(before, after, &format!("{path}*."), depth + 1);
        }
    }

    fn find(&mut self, path: &str, what: &str) {
        let side = self.side.name();
        let name = path.strip_suffix('.').unwrap_or(path);
        let space = if name.is_empty() { "" } else { " " };
        self.found.push(format!("{side}{space}{name} {what}"));
    }
}
