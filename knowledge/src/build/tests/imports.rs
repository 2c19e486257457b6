//! Files of messages into the store.

use super::*;
use crate::message::Platform;
use crate::store::Writer;

fn file(messages: &[Message]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|message| serde_json::to_vec(message).unwrap().into_iter().chain(*b"\n"))
        .collect()
}

async fn imported(root: &Root, file: &[u8]) -> Imported {
    import(
        root,
        ("test", "team-a"),
        &Writer::new("import", 1),
        file,
        &Unwatched,
        start(),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a_file_of_two_channels_becomes_two_and_again_nothing() {
    let (_, root) = memory();
    let other = |message: Message| Message {
        platform: Platform::Reddit,
        channel: "Rust".into(),
        ..message
    };
    let mut messages = talk(120);
    messages.extend(talk(50).into_iter().map(other));
    let mut bytes = file(&messages);
    bytes.extend_from_slice(b"no message\n");
    let mut first = imported(&root, &bytes).await;
    assert_eq!(
        (first.lines, first.malformed, first.named[0].number),
        (171, 1, 171)
    );
    let news: Vec<_> = first
        .channels
        .iter()
        .map(|one| (one.channel.key().channel.clone(), one.new))
        .collect();
    assert_eq!(news, [("C0AB12CD3".to_owned(), 120), ("rust".to_owned(), 50)]);
    built(&mut first.channels[0].channel, &Options::default()).await;
    // The same names as messages bring, so the same bytes.
    assert_eq!(
        generation(&root).await["manifest.json"],
        reference(&talk(120)).await["manifest.json"]
    );
    let again = imported(&root, &bytes).await;
    assert!(again.channels.iter().all(|one| one.new == 0 && one.changed == 0));
    assert_eq!(again.channels[0].channel.head(), first.channels[0].channel.head());
}

#[tokio::test]
async fn long_texts_of_many_channels_are_not_held() {
    let (_, root) = memory();
    let long = "long ".repeat(200_000);
    let messages: Vec<Message> = (0..40)
        .map(|n| Message {
            channel: format!("C{}", n % 4),
            text: format!("{n} {long}"),
            ..message(n)
        })
        .collect();
    let imported = imported(&root, &file(&messages)).await;
    assert_eq!(imported.channels.iter().map(|one| one.new).sum::<u64>(), 40);
    let commits = imported
        .channels
        .iter()
        .map(|one| one.channel.head().unwrap().version)
        .sum::<u64>();
    assert!(commits > 4, "pages end early");
}
