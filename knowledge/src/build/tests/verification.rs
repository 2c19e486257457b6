//! Verification finds every byte that is wrong; exports say what the store says.

use super::*;

async fn verified(root: &Root) -> Verified {
    let mut all = verify(root, stages(), &Options::default(), Arc::new(Unwatched))
        .await
        .unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[tokio::test]
async fn every_file_that_is_damaged_missing_or_extra_is_named() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(80)).await;
    let id = built(&mut channel, &Options::default()).await.generation;
    let clean = verified(&root).await;
    assert_eq!(
        (clean.differences.len(), clean.messages, clean.generation.as_ref()),
        (0, 80, Some(&id))
    );
    let stored = format!("{}/gen/{id}", key().folder());
    let files = generation(&root).await;
    assert_eq!(clean.files, files.len() as u64);
    for (path, bytes) in &files {
        let file = format!("{stored}/{path}");
        let mut wrong = bytes.clone();
        *wrong.last_mut().unwrap() ^= 1;
        root.put(&file, wrong.into()).await.unwrap();
        let difference = |wrong| {
            [Difference {
                file: file.clone(),
                wrong,
            }]
        };
        assert_eq!(verified(&root).await.differences, difference(Wrong::Differs));
        root.delete(&file).await.unwrap();
        assert_eq!(verified(&root).await.differences, difference(Wrong::Missing));
        root.put(&file, bytes.clone().into()).await.unwrap();
    }
    let extra = format!("{stored}/wiki/extra.md");
    root.put(&extra, "extra".into()).await.unwrap();
    let differences = verified(&root).await.differences;
    assert_eq!(
        differences,
        [Difference {
            file: extra.clone(),
            wrong: Wrong::Extra
        }]
    );
    root.delete(&extra).await.unwrap();

    let segment = channel.head().unwrap().segments[0].file.path.clone();
    root.put(&format!("{}/{segment}", key().folder()), "x".into())
        .await
        .unwrap();
    let differences = verified(&root).await.differences;
    assert!(differences[0].file.ends_with(&segment) && differences[0].wrong == Wrong::Damaged);
}

#[tokio::test]
async fn damage_is_mended_by_force() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(80)).await;
    let id = built(&mut channel, &Options::default()).await.generation;
    let file = format!("{}/gen/{id}/wiki/index.md", key().folder());
    root.put(&file, "other".into()).await.unwrap();
    assert!(built(&mut channel, &Options::default()).await.unchanged);
    assert_eq!(verified(&root).await.differences.len(), 1);
    let force = Options {
        force: true,
        ..Options::default()
    };
    assert_eq!(built(&mut channel, &force).await.generation, id);
    assert_eq!(verified(&root).await.differences, []);
}

#[tokio::test]
async fn messages_that_came_after_the_build_are_no_difference() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(80)[..70]).await;
    built(&mut channel, &Options::default()).await;
    append(&mut channel, &talk(80)).await;
    let verified = verified(&root).await;
    assert_eq!((verified.differences.len(), verified.messages), (0, 70));
}

#[tokio::test]
async fn an_export_has_plain_files() {
    let (_, root) = memory();
    let mut channel = open(&root, "a").await;
    append(&mut channel, &talk(80)).await;
    let counts = built(&mut channel, &Options::default()).await.counts;
    let to = tempfile::tempdir().unwrap();
    let folders = export(&root, to.path()).await.unwrap();
    assert_eq!(folders, [to.path().join("slack-c0ab12cd3-c1c8e57b")]);
    let read = |name: &str| std::fs::read_to_string(folders[0].join(name)).unwrap();
    assert_eq!(read("facts.jsonl").lines().count() as u64, counts.facts);
    assert_eq!(read("entities.jsonl").lines().count() as u64, counts.entities);
    assert_eq!(read("relations.jsonl").lines().count() as u64, counts.relations);
    assert!(read("graph.graphml").contains("<data key=\"name\">everything &lt;&amp;&gt;  </data>"));
    assert!(read("wiki/index.md").contains("80 7"));
}
