//! Which files are read.

use std::{fs, path::PathBuf};

use weir::manifest::{self, Reader};

use super::messages;

fn namespace(name: &str) -> String {
    format!("{{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {{\"name\": \"{name}\"}}}}\n")
}

#[test]
fn a_directory_gives_its_manifests_in_order_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("b/deep")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    for (file, name) in [("c.json", "c"), ("a.yaml", "a"), ("b/deep/b.YML", "b")] {
        fs::write(root.join(file), namespace(name)).unwrap();
    }
    for file in
        [".hidden.yaml", "#a.yaml#", "a.yaml~", ".a.yaml.swp", "notes.txt", ".git/x.yaml", "a.yaml.bak"]
    {
        fs::write(root.join(file), "not: [a manifest").unwrap();
    }
    let documents = manifest::read(&[root.to_owned()]).unwrap();
    let names: Vec<_> = documents.objects.iter().map(|object| &*object.key().name.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn a_file_named_twice_is_read_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, namespace("a")).unwrap();
    assert_eq!(manifest::read(&[file.clone(), directory.path().to_owned()]).unwrap().objects.len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_does_not_hide_the_errors_of_others() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("bytes.yaml"), b"a: 1\nb: \xff\xfe\n").unwrap();
    fs::write(directory.path().join("wrong.yaml"), "a: [").unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("link.yaml")).unwrap();
    let paths = [PathBuf::from("/does/not/exist.yaml"), directory.path().to_owned()];
    let said = messages(&manifest::read(&paths).unwrap_err()).join("\n");
    for words in [
        "exist.yaml:0:0: cannot be read",
        "bytes.yaml:2:4: not UTF-8",
        "wrong.yaml:",
        "link.yaml:0:0: cannot",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn several_sources_are_one_set() {
    let reader = Reader::default().text("-", &namespace("a")).bytes("more", namespace("a").into_bytes());
    let said = messages(&reader.finish().unwrap_err());
    assert_eq!(said, ["more:1:1: Namespace a is already defined at -:1:1"]);
}
