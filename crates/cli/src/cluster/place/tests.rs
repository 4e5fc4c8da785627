use std::fs;

use super::*;

fn root(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kvraft-place-{}-{name}", std::process::id()));
    drop(fs::remove_dir_all(&path));
    path
}

/// A directory is continued with the size and id it was made with, and by one owner at a time.
#[test]
fn kept_place_is_continued_by_one_owner() {
    let path = root("kept");
    let place = Place::kept(&path, 3).unwrap();
    let id = place.cluster_id();
    assert!(!place.used);
    assert!(Place::kept(&path, 3).unwrap_err().to_string().contains("another"));
    drop(place);
    let refused = Place::kept(&path, 5).unwrap_err().to_string();
    assert!(refused.contains("cluster of 3 servers, not of 5"), "{refused}");
    let place = Place::kept(&path, 3).unwrap();
    assert!(place.used);
    assert_eq!(place.cluster_id(), id);
    assert!(place.leave().unwrap());
    assert!(path.exists());
    fs::remove_dir_all(&path).unwrap();
}

/// What someone else has put into a directory is not ours to write into.
#[test]
fn foreign_directory_is_refused() {
    let path = root("foreign");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("letter"), "dear").unwrap();
    let refused = Place::kept(&path, 1).unwrap_err().to_string();
    assert!(refused.contains("was not made by"), "{refused}");
    fs::remove_dir_all(&path).unwrap();
}

/// A place is abandoned when its marker says temporary and nobody holds a lock in it.
#[test]
fn only_unlocked_temporary_places_are_abandoned() {
    let path = root("abandoned");
    fs::create_dir_all(path.join("server-1/data")).unwrap();
    assert!(!is_abandoned(&path), "no marker");
    let owner = lock(&path).unwrap();
    let marker = Marker { size: 1, cluster_id: 7, temporary: true };
    write_marker(&path, &marker).unwrap();
    assert!(!is_abandoned(&path), "its owner lives");
    drop(owner);
    assert!(is_abandoned(&path));
    let server = File::create(path.join("server-1/data").join(kvraft_server::LOCK_FILE)).unwrap();
    server.lock().unwrap();
    assert!(!is_abandoned(&path), "a server still runs in it");
    drop(server);
    write_marker(&path, &Marker { temporary: false, ..marker }).unwrap();
    assert!(!is_abandoned(&path), "its data is to be kept");
    fs::remove_dir_all(&path).unwrap();
}
