//! Requests of clients on their way to servers, and the answers on their way back.

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Ticket};
use kvraft_kv::{Command, Origin, SessionOp};
use kvraft_replica::{ClientRequest, Failure, NodeIn, Outcome, Reply};
use kvraft_session::Stamp;

use super::{HOP, Happening, NOTICE_MAX, World};
use crate::{
    cluster::{
        clients::{Attempt, Step, Told, answer_of},
        server::{LaneIn, Waiter},
        verdict::{Evidence, Sent},
        violation::Check,
        workload::{self, Wish},
    },
    history::OpName,
    network::Endpoint,
};

impl World {
    pub(super) fn on_client_wake(&mut self, id: u64) {
        let now = self.now;
        let client = self.clients.get_mut(&id).expect("only clients of this run are used");
        let Some(attempt) = client.wake(now, &mut self.evidence.history) else {
            return;
        };
        let happening = Happening::Timeout { client: id, attempt: attempt.number };
        // A client that stood still may come too late to wait at all.
        self.heap.push(attempt.deadline.max(now), happening);
        let ends = (Endpoint::Client(id), Endpoint::Server(attempt.server));
        let prng = &mut self.net_prng;
        let arrivals = self.network.send(self.now, ends.0, ends.1, 100, prng);
        if let Some(recording) = &mut self.recording {
            recording.on_request_sent(self.now, &attempt, arrivals.is_empty());
        }
        for at in arrivals {
            self.heap.push(at, Happening::Request(attempt.clone()));
        }
    }

    pub(super) fn on_request(&mut self, attempt: Attempt) {
        let Attempt { client, number, name, server: id, .. } = attempt;
        let is_open = self.network.is_open(Endpoint::Client(client), Endpoint::Server(id));
        if let Some(recording) = &mut self.recording {
            let is_lost = !is_open || !self.servers[&id].is_up();
            recording.on_request_arrived(self.now, &attempt, is_lost);
        }
        if !is_open {
            return;
        }
        let now = self.now;
        let server = self.server(id);
        let wall_ms = server.clock.wall_ms(now);
        if !server.is_up() {
            let told = Told::NotConnected;
            self.after(NOTICE_MAX, Happening::Response { client, attempt: number, told });
            return;
        }
        let ticket = server.ticket(Waiter::Client(client, number, name));
        let boot = server.boot;
        let node = Some(Endpoint::Client(client));
        self.trace.record(self.now, node, "request", ticket.0, || {
            format!("to s{id} ticket {ticket} {:?} {:?}", attempt.wish, attempt.stamp)
        });
        let origin = Origin { member: id, incarnation: boot, ticket };
        self.evidence.sent.insert((id, boot, ticket), Sent { name, failed: false });
        let request = request_of(&attempt, origin, wall_ms);
        self.deliver_to(id, HOP, LaneIn::Node(NodeIn::Client { ticket, request }));
        if !self.clients.get(&client).is_some_and(|client| client.waits_for(number)) {
            // The end of the stream was on its way before it.
            self.give_up_at_edge(id, boot, ticket);
        }
    }

    /// A server's edge waits for no outcome for ever: a request of which nobody says that it is
    /// over is cancelled there after a while.
    pub(crate) fn give_up_at_edge(&mut self, server: MemberId, boot: u64, ticket: Ticket) {
        let time_max = self.config.request_time_max();
        self.after(time_max, Happening::Cancel { server, boot, ticket });
    }

    pub(super) fn send_reply(&mut self, id: MemberId, reply: Reply) {
        let boot = self.servers[&id].boot;
        let Some(waiter) = self.server(id).tickets.remove(&reply.ticket) else {
            // Machine and node answer apart: one may give up while the other has the answer on its
            // way. Two answers that both claim to know would be one too many.
            let is_known = !matches!(reply.outcome, Outcome::Unknown(_));
            if is_known && !self.servers[&id].released.contains(&reply.ticket) {
                let detail = format!("server {id} answers ticket {} again", reply.ticket);
                self.checks.fail(Check::ExactlyOnce, detail);
            }
            return;
        };
        let (client, attempt, name) = match waiter {
            Waiter::Client(client, attempt, name) => (client, attempt, name),
            Waiter::Operator(request) => {
                self.answer_operator(id, request, reply);
                return;
            }
            Waiter::Stop => {
                self.after(HOP, Happening::Stop { server: id, boot });
                return;
            }
        };
        let node = Some(Endpoint::Server(id));
        let digest = reply.ticket.0 ^ reply.index.0 << 20;
        self.trace.record(self.now, node, "reply", digest, || {
            format!("to c{client} ticket {} {:?}", reply.ticket, reply.outcome)
        });
        match reply.outcome {
            Outcome::Done(_)
            | Outcome::Answered(_)
            | Outcome::Changed(_)
            | Outcome::Transferred(_) => {}
            // The machine may have the answer on its way while the node gives up.
            Outcome::Unknown(_) => {
                self.server(id).released.insert(reply.ticket);
            }
            Outcome::Failed(failure) => {
                self.sometimes.busy += u64::from(failure == Failure::Busy);
                let sent = self.evidence.sent.get_mut(&(id, boot, reply.ticket));
                sent.expect("every ticket was sent").failed = true;
            }
        }
        self.check_answer(name, &reply);
        let ends = (Endpoint::Server(id), Endpoint::Client(client));
        let prng = &mut self.net_prng;
        let arrivals = self.network.send(self.now, ends.0, ends.1, 100, prng);
        if let Some(recording) = &mut self.recording {
            let is_lost = arrivals.is_empty();
            recording.on_reply_sent(self.now, id, (client, attempt), &reply.outcome, is_lost);
        }
        for at in arrivals {
            let told = Told::Reply(reply.clone());
            self.heap.push(at, Happening::Response { client, attempt, told });
        }
    }

    /// However often a numbered change is sent, and by whom ever it is answered, the answer is one.
    fn check_answer(&mut self, name: OpName, reply: &Reply) {
        let is_opening =
            matches!(reply.outcome, Outcome::Done(Ok(kvraft_kv::Response::SessionOpened { .. })));
        let Some(answer) = answer_of(reply).filter(|_| !is_opening) else {
            return;
        };
        let first = self.answers.entry(name).or_insert_with(|| answer.clone());
        if *first == answer {
            return;
        }
        let detail = format!("{name:?} was answered {first:?} and then {answer:?}");
        self.checks.fail(Check::ExactlyOnce, detail);
    }

    /// Until when what has happened waits, since its client does nothing.
    pub(super) fn idle_until(&self, happening: &Happening) -> Option<Instant> {
        let (Happening::ClientWake { client }
        | Happening::Response { client, .. }
        | Happening::Timeout { client, .. }) = happening
        else {
            return None;
        };
        let until = self.clients.get(client)?.idle_until();
        (self.now < until).then_some(until)
    }

    pub(crate) fn pause_client(&mut self, id: u64, lasts: Duration) {
        let until = self.now + lasts;
        if let Some(client) = self.clients.get_mut(&id) {
            self.sometimes.client_pauses += 1;
            client.pause_until(until);
        }
    }

    /// A client's process ends; its connections close with it.
    pub(crate) fn crash_client(&mut self, id: u64, down: Duration) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        self.sometimes.client_crashes += 1;
        let waited = client.waited_for();
        let seed = self.crash_prng.next_u64();
        client.crash(self.now, seed, &mut self.evidence.history);
        client.pause_until(self.now + down);
        if let Some(number) = waited {
            self.sometimes.client_crashes_waiting += 1;
            self.hang_up(id, number);
        }
        self.after(down, Happening::ClientWake { client: id });
    }

    pub(super) fn on_timeout(&mut self, id: u64, number: u64) {
        let waits = self.clients.get(&id).is_some_and(|client| client.waits_for(number));
        if !waits {
            return;
        }
        self.hang_up(id, number);
        self.on_response(id, number, &Told::Nothing);
    }

    /// The stream of an attempt is closed; if that gets through, the server drops what it can.
    fn hang_up(&mut self, id: u64, number: u64) {
        let waited = self.servers.values().find_map(|server| {
            let is_it = |waiter: &Waiter| {
                matches!(waiter, Waiter::Client(client, n, _) if (*client, *n) == (id, number))
            };
            let found = server.tickets.iter().find(|(_, waiter)| is_it(waiter));
            found.map(|(ticket, _)| (server.id, server.boot, *ticket))
        });
        if let Some((server, boot, ticket)) = waited {
            let ends = (Endpoint::Client(id), Endpoint::Server(server));
            let arrivals = self.network.send(self.now, ends.0, ends.1, 0, &mut self.net_prng);
            if arrivals.is_empty() {
                self.give_up_at_edge(server, boot, ticket);
            }
            for at in arrivals {
                self.heap.push(at, Happening::Cancel { server, boot, ticket });
            }
        }
    }

    pub(super) fn on_cancel(&mut self, id: MemberId, boot: u64, ticket: Ticket) {
        let server = self.server(id);
        if server.boot == boot && server.tickets.remove(&ticket).is_some() {
            server.released.insert(ticket);
            self.sometimes.cancelled += 1;
            self.on_deliver(id, boot, LaneIn::Node(NodeIn::Cancel(ticket)));
        }
    }

    pub(super) fn on_response(&mut self, id: u64, attempt: u64, told: &Told) {
        let now = self.now;
        if let (Some(recording), Told::Reply(_)) = (&mut self.recording, told) {
            recording.on_reply_arrived(now, id, attempt);
        }
        let client = self.clients.get_mut(&id).expect("only clients of this run are used");
        let Evidence { history, opened, .. } = &mut self.evidence;
        match client.on_told(now, attempt, told, history, opened) {
            Step::Stale => {}
            Step::Again(at) => {
                self.sometimes.repeated += 1;
                self.heap.push(at.max(now), Happening::ClientWake { client: id });
            }
            Step::Ended => {
                let pause = client.pause();
                self.after(pause, Happening::ClientWake { client: id });
            }
        }
    }
}

fn request_of(attempt: &Attempt, origin: Origin, wall_ms: u64) -> ClientRequest {
    if let Wish::Do(operation) = &attempt.wish
        && !operation.may_write()
    {
        let (query, linearizable) = workload::query(operation);
        return ClientRequest::Query { query, linearizable };
    }
    let mut command = Command::new(origin, wall_ms, workload::request(&attempt.wish));
    command.session =
        attempt.stamp.map(|Stamp { client, op, acked }| SessionOp { client, op, acked });
    ClientRequest::Propose(command.encode())
}
