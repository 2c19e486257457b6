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
