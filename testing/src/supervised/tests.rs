use super::*;

/// A shell script as the supervised program.
fn script(directory: &TempDir, script: &str) -> Program {
    Program::new("/bin/sh", directory.path().join("log")).args(["-c", script])
}

/// Whether a process exists and is not merely waiting to be reaped.
fn alive(pid: u32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout);
    !matches!(state.trim().chars().next(), None | Some('Z'))
}

async fn eventually(condition: impl Fn() -> bool) {
    let fulfilled = async {
        while !condition() {
            tokio::time::sleep(LINE_POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, fulfilled)
        .await
        .expect("the condition was never fulfilled");
}

const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn reports_the_exit_code_and_the_output() {
    let directory = TempDir::new().unwrap();
    let program = script(&directory, "echo out; echo \"$WORD\" >&2; exit 3").env("WORD", "err");
    let process = Supervised::spawn(&program).unwrap();
    let exit = process.wait().await;
    assert_eq!(exit, Exit::Code(3));
    assert_eq!(process.try_wait(), Some(Exit::Code(3)));
    assert_eq!(process.log_tail(5), "out\nerr");
    assert_eq!(
        process.obituary(exit),
        "sh exited with code 3; the end of its log:\nout\nerr"
    );
}

#[tokio::test]
async fn forwards_signals() {
    let directory = TempDir::new().unwrap();
    let process = Supervised::spawn(&script(
        &directory,
        "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done",
    ))
    .unwrap();
    process
        .wait_for_line(LIMIT, |line| line == "ready")
        .await
        .unwrap();
    assert_eq!(process.try_wait(), None);
    process.signal(Signal::Terminate);
    assert_eq!(process.wait().await, Exit::Code(7));
    process.signal(Signal::Terminate);
    assert_eq!(
        process.kill().await,
        Exit::Code(7),
        "a program that has ended stays as it ended"
    );
}

#[tokio::test]
async fn kill_ends_even_a_frozen_program() {
    let directory = TempDir::new().unwrap();
    let process = Supervised::spawn(&script(&directory, "trap '' TERM HUP; exec sleep 600")).unwrap();
    process.signal(Signal::Stop);
    assert_eq!(process.kill().await, Exit::Signal(9));
    assert!(!alive(process.pid()));
}

#[tokio::test]
async fn drop_ends_the_program_and_its_children_but_keeps_the_directory() {
    let directory = TempDir::new().unwrap();
    let program = script(&directory, "sleep 600 & echo $!; wait").remove_if_abandoned(&directory);
    let process = Supervised::spawn(&program).unwrap();
    let child: u32 = process
        .wait_for_line(LIMIT, |line| !line.is_empty())
        .await
        .unwrap()
        .parse()
        .unwrap();
    let pid = process.pid();
    assert!(alive(pid) && alive(child));
    drop(process);
    assert!(!alive(pid));
    eventually(|| !alive(child)).await;
    assert!(directory.path().exists());
}

#[tokio::test]
async fn a_vanished_parent_ends_the_program_and_its_directory() {
    let directory = TempDir::new().unwrap();
    let process =
        Supervised::spawn(&script(&directory, "exec sleep 600").remove_if_abandoned(&directory)).unwrap();
    let pid = process.pid();
    // What the kernel does to our end of the pipe when we are killed.
    let mut process = std::mem::ManuallyDrop::new(process);
    process.orders = None;
    process.wait().await;
    assert!(!alive(pid));
    eventually(|| !directory.path().exists()).await;
}

#[tokio::test]
async fn standard_output_can_have_a_file_of_its_own() {
    let directory = TempDir::new().unwrap();
    let stdout = directory.path().join("stdout");
    let program = script(&directory, "echo http://127.0.0.1:1; echo note >&2").stdout(&stdout);
    let process = Supervised::spawn(&program).unwrap();
    let line = process
        .wait_for_line(LIMIT, |line| line.starts_with("http"))
        .await
        .unwrap();
    assert_eq!(line, "http://127.0.0.1:1");
    process.wait().await;
    assert_eq!(process.log_tail(5), "note");
    assert_eq!(fs::read_to_string(stdout).unwrap(), "http://127.0.0.1:1\n");
}

#[tokio::test]
async fn an_early_end_is_told_with_the_log() {
    let directory = TempDir::new().unwrap();
    let process = Supervised::spawn(&script(&directory, "echo no such flag >&2; exit 2")).unwrap();
    let error = process
        .wait_for_line(LIMIT, |line| line == "ready")
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "sh exited with code 2; the end of its log:\nno such flag");
}

#[test]
fn a_missing_program_is_named() {
    let directory = TempDir::new().unwrap();
    let program = Program::new(directory.path().join("etcd"), directory.path().join("log"));
    let error = Supervised::spawn(&program).err().unwrap().to_string();
    assert!(
        error.starts_with("cannot start etcd: there is no file "),
        "{error}"
    );
}

#[test]
fn the_tail_of_a_long_log_is_bounded() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log");
    let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    assert_eq!(tail(&file, 2).unwrap(), "line 9998\nline 9999");
    assert!(tail(&file, 10_000).unwrap().len() <= usize::try_from(QUOTED_BYTES).unwrap());
}
