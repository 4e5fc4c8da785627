//! Actions stand in logs as KVRaft (Go) writes them.

use super::*;

fn written(action: &Action) -> String {
    let (tag, body) = action.to_parts();
    assert_eq!(Action::from_parts(&tag, &body).as_ref(), Some(action), "{tag} comes back");
    format!("{tag} {body}")
}

/// Names and fields are those of the older traces, with the quirks of their tokens.
#[test]
fn bodies_have_the_older_shape() {
    assert_eq!(written(&Action::CoordStart {}), "CoordStart {}");
    assert_eq!(written(&Action::NoOpRequest {}), "NoOpRequest {}");
    assert_eq!(written(&Action::ServerStart { server_id: 1 }), "ServerStart {\"ServerId\":1}");
    let view = Action::NewClusterView { view: "AgM=".into() };
    assert_eq!(written(&view), "NewClusterView {\"View\":\"AgM=\"}");
    let id = "1".to_owned();
    let put = Action::Put { client_id: id, op_id: 27, key: "k13".into(), value: "val13".into() };
    assert_eq!(written(&put), r#"Put {"ClientId":"1","OpId":27,"Key":"k13","Value":"val13"}"#);
    let client_info = ClientInfo { client_id: "1".into(), op_id: 27 };
    let command = Command { kind: 1, key: "k13".into(), val: "val13".into(), client_info };
    let request = AppendRequest {
        term: 1,
        leader_id: 1,
        prev_log_index: 26,
        prev_log_term: 1,
        entries: vec![Entry { term: 1, command, index: 27 }],
        leader_commit: 26,
        token: Some(String::new()),
        to: None,
    };
    assert_eq!(
        written(&Action::AppendEntriesRequestSent(request)),
        "AppendEntriesRequestSent {\"Term\":1,\"LeaderId\":1,\"PrevLogIndex\":26,\
         \"PrevLogTerm\":1,\"Entries\":[{\"Term\":1,\"Command\":{\"Kind\":1,\"Key\":\"k13\",\
         \"Val\":\"val13\",\"ClientInfo\":{\"ClientId\":\"1\",\"OpId\":27}},\"Index\":27}],\
         \"LeaderCommit\":26,\"Token\":\"\"}"
    );
    let response = AppendResponse { term: 1, success: true, ..AppendResponse::default() };
    assert_eq!(
        written(&Action::AppendEntriesResponseSent(response)),
        r#"AppendEntriesResponseSent {"Term":1,"Success":true,"Token":null}"#
    );
}

/// Go writes an empty list as null; new fields may be there or not.
#[test]
fn other_spellings_are_read() {
    let body = r#"{"Term":1,"LeaderId":2,"PrevLogIndex":0,"PrevLogTerm":0,"Entries":null,
                   "LeaderCommit":0,"Token":"","Unheard":[1]}"#;
    let Some(Action::AppendEntriesRequestRecvd(request)) =
        Action::from_parts("AppendEntriesRequestRecvd", body)
    else {
        panic!("it is one");
    };
    assert_eq!((request.leader_id, request.entries.len()), (2, 0));
    let leader = Action::from_parts("BecameLeader", r#"{"ServerId":2}"#);
    assert_eq!(leader, Some(Action::BecameLeader { server_id: 2, term: None }));
}

/// What is no action of ours is none, whatever it holds.
#[test]
fn strangers_are_none() {
    assert_eq!(Action::from_parts("Unheard", "{}"), None);
    assert_eq!(Action::from_parts("Put", "[]"), None);
    assert_eq!(Action::from_parts("Put", &"[".repeat(100_000)), None);
    assert_eq!(Action::from_parts("\":1}", "{}"), None);
    assert_eq!(Action::from_parts("", "{}"), None);
}
