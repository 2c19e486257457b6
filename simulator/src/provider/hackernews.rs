//! Hacker News: a fixed list of stories whose times are relative to the simulator's clock.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Execution, Outcome};

struct Story {
    id: u64,
    title: &'static str,
    author: &'static str,
    points: u64,
    hours_old: i64,
}

const STORIES: [Story; 6] = [
    Story {
        id: 4_006,
        title: "Show HN: A clock that only advances",
        author: "manual",
        points: 3,
        hours_old: 1,
    },
    Story {
        id: 4_005,
        title: "Why etcd fsyncs twice",
        author: "quorum",
        points: 412,
        hours_old: 5,
    },
    Story {
        id: 4_004,
        title: "Rust in the control plane",
        author: "borrowck",
        points: 230,
        hours_old: 9,
    },
    Story {
        id: 4_003,
        title: "Ask HN: How do you test OAuth flows?",
        author: "pkce",
        points: 87,
        hours_old: 20,
    },
    Story {
        id: 4_002,
        title: "The fixed window problem",
        author: "leaky",
        points: 154,
        hours_old: 30,
    },
    Story {
        id: 4_001,
        title: "Idempotency keys, revisited",
        author: "once",
        points: 301,
        hours_old: 70,
    },
];

impl Story {
    fn render(&self, now: Timestamp) -> Value {
        let created = now.as_second() - self.hours_old * 3_600;
        json!({
            "objectID": self.id.to_string(),
            "title": self.title,
            "url": format!("https://example.com/{}", self.id),
            "author": self.author,
            "points": self.points,
            "num_comments": self.points / 3,
            "created_at_i": created,
            "_tags": ["story", format!("author_{}", self.author), format!("story_{}", self.id)],
        })
    }
}

pub(super) fn run(execution: &Execution<'_>) -> Outcome {
    let now = execution.now;
    let min_points = execution.number("min_points").unwrap_or_default();
    match execution.tool.slug.as_str() {
        "HACKERNEWS_GET_FRONTPAGE" => {
            let mut stories: Vec<_> = STORIES
                .iter()
                .filter(|story| story.points >= min_points)
                .collect();
            stories.sort_by_key(|story| std::cmp::Reverse(story.points));
            Outcome::Done(page(execution, &stories))
        }
        "HACKERNEWS_GET_LATEST_POSTS" => Outcome::Done(page(execution, &STORIES.iter().collect::<Vec<_>>())),
        "HACKERNEWS_GET_TODAYS_POSTS" => {
            let today = |story: &&Story| story.hours_old < 24 && story.points >= min_points;
            Outcome::Done(page(execution, &STORIES.iter().filter(today).collect::<Vec<_>>()))
        }
        "HACKERNEWS_SEARCH_POSTS" => {
            let query = execution.text("query").unwrap_or_default().to_lowercase();
            let found = |story: &&Story| story.title.to_lowercase().contains(&query);
            Outcome::Done(page(execution, &STORIES.iter().filter(found).collect::<Vec<_>>()))
        }
        "HACKERNEWS_GET_ITEM_WITH_ID" => {
            let id = execution.number("item_id").unwrap_or_default();
            STORIES.iter().find(|story| story.id == id).map_or_else(
                || not_found(&format!("items/{id}")),
                |story| Outcome::Done(story.render(now)),
            )
        }
        "HACKERNEWS_GET_USER" => {
            let name = execution.text("username").unwrap_or_default();
            STORIES.iter().find(|story| story.author == name).map_or_else(
                || not_found(&format!("users/{name}")),
                |story| Outcome::Done(json!({"username": name, "about": "", "karma": story.points * 2})),
            )
        }
        _ => Outcome::NotSimulated,
    }
}

fn page(execution: &Execution<'_>, stories: &[&Story]) -> Value {
    let size = execution.number("size").unwrap_or(20).max(1);
    let number = execution.number("page").unwrap_or_default();
    let per_page = usize::try_from(size).unwrap_or(usize::MAX);
    let skip = usize::try_from(number)
        .unwrap_or(usize::MAX)
        .saturating_mul(per_page);
    let hits: Vec<_> = stories
        .iter()
        .skip(skip)
        .take(per_page)
        .map(|story| story.render(execution.now))
        .collect();
    json!({
        "hits": hits,
        "nbHits": stories.len(),
        "nbPages": stories.len().div_ceil(per_page),
        "page": number,
        "hitsPerPage": size,
    })
}

fn not_found(path: &str) -> Outcome {
    Outcome::http_error(
        404,
        "Not Found",
        &format!("https://hn.algolia.com/api/v1/{path}"),
        &json!({"status": 404, "error": "Not Found"}),
    )
}
