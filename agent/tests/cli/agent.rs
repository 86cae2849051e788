//! `weir agent`, where it does not start.

use super::*;

#[test]
fn an_agent_with_wrong_manifests_refuses_to_start_with_3() {
    let host = Host::new();
    host.file("bad.yaml", "kind: [\n");

    let output = host.weir(&["agent", "--node", "a", "--manifests", "bad.yaml", "--bpffs", "bpf"]);

    assert_eq!(status(&output), 3);
    assert!(stderr(&output).contains("bad.yaml:"), "{}", stderr(&output));
    assert!(!host.path().join("bpf").exists());
}

#[test]
fn an_agent_that_cannot_use_its_state_directory_refuses_to_start_with_5() {
    let host = Host::new();
    fs::create_dir(host.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", host.path().join("state")).unwrap();

    let output = host.weir(&[
        "agent",
        "--node",
        "a",
        "--manifests",
        "deny.yaml",
        "--state",
        "state",
        "--bpffs",
        "bpf",
    ]);

    assert_eq!(status(&output), 5);
    assert!(stderr(&output).contains("symbolic link"), "{}", stderr(&output));
}
