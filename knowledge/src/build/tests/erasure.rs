//! A message that is deleted leaves nothing.

use super::*;
use crate::store::Grace;
use crate::store::tests::collection::holding;

#[tokio::test]
async fn the_text_of_a_deleted_message_leaves_the_generation_and_then_every_byte() {
    const CANARY: &str = "kestrel-canary-4711";
    let folder = tempfile::tempdir().unwrap();
    let root = Root::in_folder(folder.path().to_owned()).unwrap();
    let mut channel = open(&root, "a").await;
    let mut messages = talk(60);
    messages[30].text = format!("the code is {CANARY}");
    append(&mut channel, &messages[..50]).await;
    built(&mut channel, &Options::default()).await;
    append(&mut channel, &messages[50..]).await;
    built(&mut channel, &Options::default()).await;
    let now = Timestamp::now();
    let held = holding(folder.path(), CANARY);
    assert!(
        held.iter().any(|path| path.contains("/gen/")) && held.iter().any(|path| path.contains("/messages/"))
    );

    let deletion = Page {
        deleted: vec![messages[30].id.clone()],
        ..Page::default()
    };
    channel.append(deletion, start()).await.unwrap();
    channel.collect(Grace::default(), now).await.unwrap();
    let held = holding(folder.path(), CANARY);
    assert!(
        held.iter().all(|path| path.contains("/gen/")),
        "readers have the old generation until: {held:?}"
    );
    built(&mut channel, &Options::default()).await;
    messages.remove(30);
    assert_eq!(generation(&root).await, reference(&messages).await);
    channel.collect(Grace::default(), now).await.unwrap();
    assert_eq!(holding(folder.path(), CANARY), [""; 0]);
    assert_eq!(
        generation(&root).await,
        reference(&messages).await,
        "collection took nothing else"
    );
}

#[tokio::test]
async fn a_channel_lives_on_s3_as_it_does_on_files() {
    let server = crate::store::tests::s3::Server::start().await;
    let root = server.root();
    root.probe().await.unwrap();
    let mut channel = open(&root, "a").await;
    let mut messages = talk(80);
    append(&mut channel, &messages).await;
    built(&mut channel, &Options::default()).await;
    let deletion = Page {
        deleted: vec![messages.remove(40).id],
        ..Page::default()
    };
    channel.append(deletion, start()).await.unwrap();
    let second = built(&mut channel, &Options::default()).await;
    assert!(second.pages_kept > 0 && second.pages_written > 0, "{second:?}");
    let collected = channel.collect(Grace::default(), Timestamp::now()).await.unwrap();
    assert_eq!(collected.commits, 2, "those before the erasure");
    assert_eq!(generation(&root).await, reference(&messages).await);
    let verified = verify(&root, stages(), &Options::default(), Arc::new(Unwatched))
        .await
        .unwrap();
    assert_eq!(verified[0].differences, []);
    assert_eq!(root.channels().await.unwrap(), [key().folder()]);
    Channel::delete(&root, &key()).await.unwrap();
    assert_eq!(root.channels().await.unwrap(), [""; 0]);
}
