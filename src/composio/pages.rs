//! Lists, followed to their last page.

use std::collections::HashMap;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::Error;
use super::budget::Priority;
use super::transport::{Call, Transport};
use super::wire::{Skipped, page};

/// Items per page: safe for every list of the API.
const PAGE_SIZE: &str = "100";
/// A list of more pages than this does not end.
const MOST_PAGES: usize = 2000;

/// A list with all its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// What could be read, each object once.
    pub items: Vec<T>,
    /// What could not: with any of these the list says nothing about what it does not contain.
    pub skipped: Vec<Skipped>,
}

impl<T> Listing<T> {
    /// Everything in the answer could be read.
    pub fn is_complete(&self) -> bool {
        self.skipped.is_empty()
    }
}

/// How to list one kind of object.
pub(super) struct List<'a, T> {
    pub operation: &'static str,
    pub path: &'a str,
    pub query: Vec<(&'a str, &'a str)>,
    pub decode: fn(&RawValue) -> Result<T, Skipped>,
    pub id: fn(&T) -> &str,
}

/// Reads the whole list. A cursor is a page number in disguise, so that objects which come and go between two pages
/// shift the rest: what appears twice is kept once, and a list that is shorter than it claims to be is read again.
pub(super) async fn read<T>(
    transport: &Transport,
    priority: Priority,
    list: &List<'_, T>,
) -> Result<Listing<T>, Error> {
    let mut collected = Collected {
        items: Vec::new(),
        places: HashMap::new(),
        skipped: Vec::new(),
        id: list.id,
    };
    let Pass { pages, promised } = pass(transport, priority, list, &mut collected).await?;
    if pages > 1 && promised.is_some_and(|promised| collected.len() < promised) {
        collected.skipped.clear();
        pass(transport, priority, list, &mut collected).await?;
    }
    let Collected { items, skipped, .. } = collected;
    if !skipped.is_empty() {
        tracing::warn!(
            operation = list.operation,
            skipped = skipped.len(),
            "list items cannot be understood"
        );
    }
    Ok(Listing { items, skipped })
}

/// Objects by id; the newest answer about each.
struct Collected<T> {
    items: Vec<T>,
    places: HashMap<String, usize>,
    skipped: Vec<Skipped>,
    id: fn(&T) -> &str,
}

impl<T> Collected<T> {
    fn len(&self) -> u64 {
        (self.items.len() + self.skipped.len()) as u64
    }

    fn add(&mut self, item: Result<T, Skipped>) {
        match item {
            Err(skipped) => self.skipped.push(skipped),
            Ok(item) => {
                if let Some(place) = self.places.get((self.id)(&item)) {
                    self.items[*place] = item;
                } else {
                    self.places.insert((self.id)(&item).to_owned(), self.items.len());
                    self.items.push(item);
                }
            }
        }
    }
}

struct Pass {
    pages: usize,
    /// Number of objects that the last page spoke of.
    promised: Option<u64>,
}

async fn pass<T>(
    transport: &Transport,
    priority: Priority,
    list: &List<'_, T>,
    collected: &mut Collected<T>,
) -> Result<Pass, Error> {
    let endless = |message: &str| Error::Decode {
        message: message.to_owned(),
        excerpt: String::new(),
    };
    let mut cursor: Option<String> = None;
    let mut seen = HashSet::new();
    for pages in 1..=MOST_PAGES {
        let mut query = list.query.clone();
        query.push(("limit", PAGE_SIZE));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let call = Call {
            operation: list.operation,
            priority,
            method: reqwest::Method::GET,
            url: transport.url(&[list.path], &query)?,
            body: None,
            repeatable: true,
        };
        let (items, next, promised) = transport
            .call(&call, |body| {
                let page = page(body)?;
                let items: Vec<_> = page.items.iter().map(|item| (list.decode)(item)).collect();
                Ok((items, page.next_cursor, page.total_items))
            })
            .await?;
        for item in items {
            collected.add(item);
        }
        let Some(next) = next else {
            return Ok(Pass { pages, promised });
        };
        if !seen.insert(next.clone()) {
            return Err(endless("the list leads back to a page that was already read"));
        }
        cursor = Some(next);
    }
    Err(endless("the list does not end"))
}
