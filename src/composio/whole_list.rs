//! Lists that end before they are whole.
//!
//! A server that gives fewer items a page than it was asked for, and yet counts its pages by what it was asked for, calls a
//! page the last one although more would follow. The list is then read again with pages that it does fill. If it still
//! names no further page, the pages are asked for by number: a cursor is documented as the base64 of page and limit.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::Error;
use super::budget::Priority;
use super::list::{List, Listing, read};
use super::transport::Transport;

/// Page sizes to fall back on, from large to small.
const PAGE_SIZES: [&str; 10] = ["500", "200", "100", "50", "25", "10", "5", "3", "2", "1"];

/// A list that would need more pages than this is not read again.
const MOST_PAGES: usize = 60;

impl<T> Listing<T> {
    /// How many objects are not among the items: they could not be decoded, or were counted and not listed.
    pub(crate) fn missing(&self) -> usize {
        self.unlisted() + self.skipped.len()
    }

    /// How many objects were counted and not listed.
    fn unlisted(&self) -> usize {
        let listed = self.items.len() + self.skipped.len();
        self.reported_total.unwrap_or_default().saturating_sub(listed)
    }
}

/// Reads the whole list, in smaller pages if that brings more of it.
pub(super) async fn read_whole<T>(
    transport: &Transport,
    priority: Priority,
    mut list: List<'_, T>,
) -> Result<Listing<T>, Error> {
    let mut best = read(transport, priority, &list).await?;
    let Some(page_size) = smaller_page(&best, list.page_size) else {
        return Ok(best);
    };
    list.page_size = page_size;
    let pages = best.pages;
    let again = read(transport, priority, &list).await?;
    if again.missing() < best.missing() {
        best = again;
    } else {
        best.pages = again.pages;
    }
    best.pages += pages;
    walk(transport, priority, &list, &mut best).await;
    Ok(best)
}

/// Asks for page after page by its number, until nothing is missing or a page brings nothing new. What a server makes of
/// such a cursor is its own affair: an error only ends the walk.
async fn walk<T>(transport: &Transport, priority: Priority, list: &List<'_, T>, found: &mut Listing<T>) {
    let mut known: HashSet<String> = found
        .items
        .iter()
        .map(|item| (list.id)(item).to_owned())
        .collect();
    for number in 2..=MOST_PAGES {
        if found.unlisted() == 0 {
            return;
        }
        let cursor = cursor(number, list.page_size);
        let mut query = list.query.clone();
        query.push(("cursor", &cursor));
        let page = List { query, ..*list };
        let Ok(page) = read(transport, priority, &page).await else {
            return;
        };
        found.pages += page.pages;
        let before = known.len();
        let new = page
            .items
            .into_iter()
            .filter(|item| known.insert((list.id)(item).to_owned()));
        found.items.extend(new);
        if known.len() == before {
            return;
        }
        found.skipped.extend(page.skipped);
    }
}

fn cursor(page: usize, limit: &str) -> String {
    let limit: usize = limit.parse().unwrap_or_default();
    BASE64_STANDARD.encode(json!({ "page": page, "limit": limit }).to_string())
}

/// The page size that the server seems to have kept to; None if the list is whole, or pages of another size would not help.
fn smaller_page<T>(listing: &Listing<T>, asked_for: &str) -> Option<&'static str> {
    let number = |size: &str| size.parse::<usize>().unwrap_or(usize::MAX);
    if listing.unlisted() == 0 {
        return None;
    }
    let a_page = (listing.items.len() + listing.skipped.len()) / listing.pages.max(1);
    let size = PAGE_SIZES.into_iter().find(|size| number(size) <= a_page)?;
    let pages = listing.reported_total?.div_ceil(number(size));
    (number(size) < number(asked_for) && pages <= MOST_PAGES).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composio::wire::Skipped;

    fn listing(items: usize, skipped: usize, reported_total: Option<usize>, pages: usize) -> Listing<()> {
        Listing {
            items: vec![(); items],
            skipped: vec![Skipped::default(); skipped],
            reported_total,
            pages,
        }
    }

    #[test]
    fn what_is_missing_is_what_was_counted_or_could_not_be_decoded() {
        let table = [
            ((50, 0, Some(50)), 0),
            ((50, 0, None), 0),
            ((50, 2, Some(52)), 2),
            ((50, 2, None), 2),
            ((50, 2, Some(120)), 70),
            ((50, 0, Some(40)), 0),
        ];
        for ((items, skipped, total), missing) in table {
            assert_eq!(
                listing(items, skipped, total, 1).missing(),
                missing,
                "{items} {skipped} {total:?}"
            );
        }
    }

    #[test]
    fn a_short_list_is_read_again_with_pages_that_the_server_fills() {
        let table = [
            ("whole", (50, 0, Some(50), 1), None),
            ("cut at fifty", (50, 0, Some(124), 1), Some("50")),
            ("cut at fifty on two pages", (100, 0, Some(1250), 2), Some("50")),
            ("an odd number", (30, 0, Some(124), 1), Some("25")),
            ("only items that cannot be decoded", (48, 2, Some(50), 1), None),
            ("one of them among others", (49, 1, Some(124), 1), Some("50")),
            ("nothing at all", (0, 0, Some(124), 1), None),
            ("too many pages", (1, 0, Some(1000), 1), None),
        ];
        for (what, (items, skipped, total, pages), size) in table {
            assert_eq!(
                smaller_page(&listing(items, skipped, total, pages), "1000"),
                size,
                "{what}"
            );
        }
        assert_eq!(
            smaller_page(&listing(50, 0, Some(51), 1), "50"),
            None,
            "no smaller than before"
        );
    }
}
