//! Reads lists to their last page.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::Error;
use super::budget::Priority;
use super::transport::{Call, Transport};
use super::wire::{Skipped, page};

/// Items per page where nothing else is known: safe for every list of the API but the webhook subscriptions.
pub(super) const PAGE_SIZE: &str = "100";
/// A list of more pages than this is taken for endless.
const MOST_PAGES: usize = 2000;

/// A list with all its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing<T> {
    /// What could be decoded, each object once.
    pub items: Vec<T>,
    /// What could not be decoded. With any of these, an object's absence from the list proves nothing.
    pub skipped: Vec<Skipped>,
    /// How many objects there are by Composio's own count on the last page that gave one, without those that nobody asked
    /// for. If it is higher than the number of items, some are missing; if it is lower, some were deleted while the list
    /// was read.
    pub reported_total: Option<usize>,
    /// How many pages were read, including those of a second attempt.
    pub pages: usize,
}

impl<T> Listing<T> {
    /// Everything in the answer could be decoded.
    pub(crate) fn is_complete(&self) -> bool {
        self.skipped.is_empty()
    }
}

/// How to list one kind of object.
pub(super) struct List<'a, T> {
    pub operation: &'static str,
    pub path: &'a str,
    /// Items to ask for per page. The endpoint may refuse a number above its limit.
    pub page_size: &'static str,
    pub query: Vec<(&'a str, &'a str)>,
    pub decode: fn(&RawValue) -> Result<T, Skipped>,
    pub id: fn(&T) -> &str,
    /// Whether an object is among those that were asked for, in case the server ignored a filter. Must depend on fields
    /// only that do not change in the life of an object.
    pub wanted: &'a (dyn Fn(&T) -> bool + Sync),
}

/// Reads the whole list. A cursor is an encoded page number, so that objects which are created or deleted between two
/// pages move the others to another page: what appears twice is kept once, and a list that is shorter than it claims to be
/// is read again.
pub(super) async fn read<T>(
    transport: &Transport,
    priority: Priority,
    list: &List<'_, T>,
) -> Result<Listing<T>, Error> {
    let mut collected = read_pages(transport, priority, list).await?;
    if collected.may_be_incomplete() {
        let again = read_pages(transport, priority, list).await?;
        if again.may_be_incomplete() {
            collected.merge(list, again);
        } else {
            collected = Collected {
                pages: collected.pages + again.pages,
                ..again
            };
        }
    }
    let unwanted = collected.places.values().filter(|place| place.is_none()).count();
    let Collected {
        items,
        skipped,
        pages,
        reported_total,
        ..
    } = collected;
    if !skipped.is_empty() {
        tracing::warn!(
            operation = list.operation,
            skipped = skipped.len(),
            "Composio listed items that cannot be decoded"
        );
    }
    Ok(Listing {
        items,
        skipped,
        reported_total: reported_total.map(|reported_total| reported_total.saturating_sub(unwanted)),
        pages,
    })
}

/// What the pages of a list contained: objects by id, the newest version of each.
struct Collected<T> {
    items: Vec<T>,
    /// Index of each object in `items`; `None` if nobody asked for it.
    places: HashMap<String, Option<usize>>,
    skipped: Vec<Skipped>,
    pages: usize,
    /// The number of objects that a page reported last.
    reported_total: Option<usize>,
    /// The highest such number of all pages.
    highest_reported_total: Option<usize>,
}

impl<T> Collected<T> {
    /// When an object is deleted while the list is read, later ones move to an earlier page and are missed. The reported
    /// total falls with it, so that only the highest one shows that objects are missing.
    fn may_be_incomplete(&self) -> bool {
        let known = self.places.len() + self.skipped.len();
        self.pages > 1
            && self
                .highest_reported_total
                .is_some_and(|reported_total| known < reported_total)
    }

    fn add(&mut self, list: &List<'_, T>, item: T) {
        let id = (list.id)(&item);
        match self.places.get(id) {
            Some(Some(place)) => self.items[*place] = item,
            Some(None) => {}
            None => {
                let place = (list.wanted)(&item).then_some(self.items.len());
                self.places.insert(id.to_owned(), place);
                if place.is_some() {
                    self.items.push(item);
                }
            }
        }
    }

    /// Adds what a second attempt read.
    fn merge(&mut self, list: &List<'_, T>, later: Self) {
        for item in later.items {
            self.add(list, item);
        }
        for (id, place) in later.places {
            if place.is_none() {
                self.places.entry(id).or_insert(None);
            }
        }
        self.skipped = later.skipped;
        self.pages += later.pages;
        self.reported_total = later.reported_total;
    }
}

async fn read_pages<T>(
    transport: &Transport,
    priority: Priority,
    list: &List<'_, T>,
) -> Result<Collected<T>, Error> {
    let endless = |message: &str| Error::Decode {
        message: message.to_owned(),
        excerpt: String::new(),
    };
    let mut collected = Collected {
        items: Vec::new(),
        places: HashMap::new(),
        skipped: Vec::new(),
        pages: 0,
        reported_total: None,
        highest_reported_total: None,
    };
    let mut cursor: Option<String> = None;
    let mut seen = HashSet::new();
    while collected.pages < MOST_PAGES {
        let mut query = list.query.clone();
        query.push(("limit", list.page_size));
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
        // Decoded while the body is at hand, so that no more than one page's text is held.
        let (items, next, reported_total) = transport
            .call(&call, |body| {
                let page = page(body)?;
                let unreadable = (0..page.unreadable).map(|_| Err(Skipped::default()));
                let items: Vec<_> = page
                    .items
                    .iter()
                    .map(|item| (list.decode)(item))
                    .chain(unreadable)
                    .collect();
                Ok((items, page.next_cursor, page.total_items))
            })
            .await?;
        for item in items {
            match item {
                Ok(item) => collected.add(list, item),
                Err(skipped) => collected.skipped.push(skipped),
            }
        }
        collected.pages += 1;
        let reported_total = reported_total.and_then(|reported_total| usize::try_from(reported_total).ok());
        collected.reported_total = reported_total.or(collected.reported_total);
        collected.highest_reported_total = collected.highest_reported_total.max(reported_total);
        let Some(next) = next else {
            return Ok(collected);
        };
        if !seen.insert(next.clone()) {
            return Err(endless("the list leads back to a page that was already read"));
        }
        cursor = Some(next);
    }
    Err(endless("the list does not end"))
}
