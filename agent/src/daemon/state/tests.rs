use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_published_state_is_found_again() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(&root.path().join("a/node")).unwrap();
    assert_eq!(directory.load::<Vec<String>>().unwrap(), None);

    directory.prepare(&vec!["one"]).unwrap().publish().unwrap();
    drop(directory);
    let directory = Directory::open(&root.path().join("a/node")).unwrap();

    assert_eq!(directory.load::<Vec<String>>().unwrap(), Some(vec!["one".to_owned()]));
    assert_eq!(mode(&root.path().join("a/node")), 0o700);
    assert_eq!(mode(&directory.file()), 0o600);
}

#[test]
fn a_state_that_was_not_published_leaves_the_old_one() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(&root.path().join("node")).unwrap();
    directory.prepare(&1).unwrap().publish().unwrap();

    let _ = directory.prepare(&2).unwrap();

    assert_eq!(directory.load::<u32>().unwrap(), Some(1));
}

#[test]
fn changes_follow_the_state_that_they_were_made_of_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(&root.path().join("node")).unwrap();
    directory.prepare(&"first").unwrap().publish().unwrap();
    directory.append(&1).unwrap().publish().unwrap();
    drop(directory.append(&2).unwrap());
    directory.append(&3).unwrap().publish().unwrap();
    // What a crash leaves of a change.
    let mut cut = OpenOptions::new().append(true).open(directory.changes()).unwrap();
    cut.write_all(b"[4").unwrap();

    assert_eq!(directory.load::<String>().unwrap().as_deref(), Some("first"));
    assert_eq!(directory.load_changes::<u32>().unwrap(), [1, 3]);

    directory.prepare(&"second").unwrap().publish().unwrap();
    assert_eq!(directory.load_changes::<u32>().unwrap(), [0; 0]);
    directory.append(&5).unwrap().publish().unwrap();
    assert_eq!(directory.load_changes::<u32>().unwrap(), [5]);
}

#[test]
fn a_symbolic_link_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("real")).unwrap();
    std::os::unix::fs::symlink(root.path().join("real"), root.path().join("node")).unwrap();

    assert!(matches!(Directory::open(&root.path().join("node")), Err(StateError::Unsafe { .. })));
    assert!(Directory::open(&root.path().join("real")).is_ok());
}

#[test]
fn a_planted_link_is_not_written_through() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(&root.path().join("node")).unwrap();
    let victim = root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, directory.next()).unwrap();

    assert!(directory.prepare(&1).is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn a_directory_that_is_too_open_is_closed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("node");
    DirBuilder::new().mode(0o755).create(&path).unwrap();

    Directory::open(&path).unwrap();

    assert_eq!(mode(&path), 0o700);
}

#[test]
fn two_agents_cannot_share_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("node");
    let first = Directory::open(&path).unwrap();

    assert!(matches!(Directory::open(&path), Err(StateError::Busy(_))));
    drop(first);
    assert!(Directory::open(&path).is_ok());
}

#[test]
fn a_state_of_another_format_is_named_as_such() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(&root.path().join("node")).unwrap();
    for text in ["{\"format\":99,\"state\":1}", "garbage", ""] {
        fs::write(directory.file(), text).unwrap();
        assert!(matches!(directory.load::<u32>(), Err(StateError::Format { .. })), "{text}");
    }
}

#[test]
fn nothing_is_left_after_removal() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(&root.path().join("node")).unwrap();
    directory.prepare(&1).unwrap().publish().unwrap();

    directory.remove().unwrap();

    assert!(!root.path().join("node").exists());
}
