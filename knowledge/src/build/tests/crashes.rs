//! A builder that dies at any change, and one that comes after it.

use super::faults::{Fault, Faulty};
use super::*;

/// Appends what is missing, builds, collects: a run.
async fn run(root: &Root, writer: &str, messages: &[Message]) -> Result<(), StoreError> {
    let mut channel = Channel::open(root, key(), crate::store::Writer::new(writer, 1)).await?;
    for page in messages.chunks(10) {
        let page = Page {
            messages: page.to_vec(),
            ..Page::default()
        };
        channel.append(page, start()).await?;
        if channel.head().is_some_and(|head| head.version == 2) {
            build(
                &mut channel,
                stages(),
                &Options::default(),
                Arc::new(Unwatched),
                start(),
            )
            .await?;
        }
    }
    build(
        &mut channel,
        stages(),
        &Options::default(),
        Arc::new(Unwatched),
        start(),
    )
    .await?;
    let later = Timestamp::now() + SignedDuration::from_hours(48);
    channel.collect(crate::store::Grace::default(), later).await?;
    Ok(())
}

#[tokio::test]
async fn a_crash_at_any_change_leaves_no_trace_in_the_generation() {
    let messages = talk(40);
    let expected = reference(&messages).await;
    let (store, undisturbed) = memory();
    let counting = Faulty::new(store, Fault::None);
    run(
        &Root::over(
            Arc::clone(&counting) as Arc<dyn object_store::ObjectStore>,
            "counting",
        ),
        "a",
        &messages,
    )
    .await
    .unwrap();
    assert_eq!(generation(&undisturbed).await, expected);
    let changes = counting.changes();
    assert!(changes > 40, "{changes}");
    for n in 1..=changes {
        for fault in [Fault::DieBefore(n), Fault::DieAfter(n), Fault::LoseAnswer(n)] {
            let (store, plain) = memory();
            let faulty = Root::over(Faulty::new(store, fault), "faulty");
            let first = run(&faulty, "a", &messages).await;
            if let Some(commit) = latest(&plain, &key().folder()).await.unwrap()
                && commit.generation.is_some()
            {
                // Whatever happened, readers see a generation that is whole.
                let seen = generation(&plain).await;
                let manifest = Manifest::parse(&seen[Manifest::NAME], "manifest").unwrap();
                for file in manifest.files {
                    assert_eq!(
                        crate::digest::hex(&seen[&file.path]),
                        file.sha256,
                        "{fault:?} {}",
                        file.path
                    );
                }
            }
            run(&plain, "b", &messages).await.unwrap();
            let head = latest(&plain, &key().folder()).await.unwrap().unwrap();
            assert_eq!(head.counts.messages, 40, "{fault:?}");
            assert!(generation(&plain).await == expected, "{fault:?} {first:?}");
        }
    }
}

#[tokio::test]
async fn who_is_cancelled_stops_and_leaves_what_was_there() {
    struct Cancelled;
    impl Progress for Cancelled {
        fn at(&self, _: Stage, _: u64, _: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(50)).await;
    let options = Options::default();
    let stopped = build(&mut channel, stages(), &options, Arc::new(Cancelled), start()).await;
    assert!(matches!(stopped.unwrap_err(), StoreError::Cancelled));
    assert_eq!(latest(&root, &key().folder()).await.unwrap().unwrap().version, 1);
}
