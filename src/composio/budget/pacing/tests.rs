//! Each rule of the pacer, and the promise that they keep together.

use proptest::prelude::*;
use strum::VariantArray;

use super::*;

const WINDOW: Duration = Duration::from_mins(1);

fn seconds(seconds: u64) -> At {
    At::from_secs(seconds)
}

fn headers(limit: u64, remaining: u64) -> RateHeaders {
    RateHeaders {
        limit: Some(limit),
        remaining: Some(remaining),
        window: Some(WINDOW),
    }
}

/// Makes as many calls as `class` may between two times.
fn drain(pacer: &mut Pacer, from: At, until: At, class: Priority) -> Vec<At> {
    let mut sent = Vec::new();
    let mut now = from;
    loop {
        now = now.max(pacer.earliest(now, class));
        if now >= until {
            return sent;
        }
        pacer.take(now, class);
        sent.push(now);
    }
}

/// How many calls of a class may go out at one moment.
fn at_once(pacer: &mut Pacer, now: At, class: Priority) -> usize {
    drain(pacer, now, now + Duration::from_nanos(1), class).len()
}

/// A pacer that has been running for long, alone.
fn running(now: At) -> Pacer {
    let mut pacer = Pacer::new(2000, WINDOW);
    pacer.forget_old(now);
    pacer
}

#[test]
fn a_new_budget_starts_with_a_few_calls_and_then_keeps_the_sustained_rate() {
    for &class in Priority::VARIANTS {
        let mut pacer = Pacer::new(2000, WINDOW);
        assert_eq!(at_once(&mut pacer, At::ZERO, class), 10, "{class:?}");
    }
    let mut pacer = Pacer::new(2000, WINDOW);
    let sent = drain(&mut pacer, At::ZERO, seconds(30), Priority::Interactive);
    assert!((900..=980).contains(&sent.len()), "{}", sent.len());
    let mut tiny = Pacer::new(5, WINDOW);
    assert_eq!(tiny.earliest(At::ZERO, Priority::Background), At::ZERO);
}

/// Found as links that a thousand people waited for although the window was untouched.
#[test]
fn what_the_window_still_holds_is_there_for_people_at_once() {
    let now = seconds(1000);
    // usable 1920, of which 40 percent are kept for the others
    assert_eq!(at_once(&mut running(now), now, Priority::Interactive), 1152);
    // The first count of the server tells as much.
    let mut started = Pacer::new(2000, WINDOW);
    let call = started.take(At::ZERO, Priority::Interactive);
    started.observe(seconds(1), call, headers(2000, 1999));
    assert_eq!(at_once(&mut started, seconds(1), Priority::Interactive), 1151);
    // Whoever ran before has used most of the window.
    let mut restarted = Pacer::new(2000, WINDOW);
    let call = restarted.take(At::ZERO, Priority::Interactive);
    restarted.observe(seconds(1), call, headers(2000, 600));
    assert_eq!(at_once(&mut restarted, seconds(1), Priority::Interactive), 560);
}

#[test]
fn no_class_takes_the_share_of_another() {
    let now = seconds(1000);
    for &greedy in Priority::VARIANTS {
        let mut pacer = running(now);
        drain(&mut pacer, now, now + WINDOW, greedy);
        for &other in Priority::VARIANTS.iter().filter(|other| **other != greedy) {
            let sent = drain(&mut pacer, now + WINDOW, now + WINDOW + seconds(1), other).len();
            assert!(sent > 0, "{other:?} beside {greedy:?}");
        }
    }
}

#[test]
fn what_no_person_waits_for_is_spread_over_the_window() {
    let now = seconds(1000);
    let sent = drain(&mut running(now), now, now + WINDOW, Priority::Pending);
    assert!((1000..1300).contains(&sent.len()), "{}", sent.len());
    let last_third = sent.iter().filter(|at| **at > now + seconds(40)).count();
    assert!(last_third > 120, "{last_third}");
    assert_eq!(at_once(&mut running(now), now, Priority::Background), 192);
}

/// Found as links and polls that stood still because a tool had been called too often.
#[test]
fn a_refusal_of_one_class_leaves_the_others_alone() {
    let now = seconds(1000);
    let mut pacer = running(now);
    pacer.refuse(now, Some(seconds(600)), Some(Priority::Identity));
    for &class in Priority::VARIANTS {
        let is_closed = pacer.earliest(now, class) >= now + seconds(600);
        assert_eq!(is_closed, class == Priority::Identity, "{class:?}");
    }
    pacer.reopen(now);
    assert!(pacer.earliest(now, Priority::Identity) <= now);
}

#[test]
fn a_refusal_closes_the_budget_for_everybody_and_reopens_it_gently() {
    let mut pacer = Pacer::new(2000, WINDOW);
    pacer.refuse(seconds(100), Some(Duration::from_secs(7)), None);
    for &class in Priority::VARIANTS {
        assert!(pacer.earliest(seconds(100), class) >= seconds(107));
    }
    assert_eq!(pacer.closed_until(seconds(100)), Some(seconds(107)));
    assert_eq!(pacer.closed_until(seconds(107)), None);
    let reopened = drain(
        &mut pacer,
        seconds(107),
        seconds(107) + Duration::from_nanos(1),
        Priority::Interactive,
    );
    assert_eq!(reopened.len(), 10);
    // A shorter refusal that arrives later does not open it earlier.
    pacer.refuse(seconds(200), Some(Duration::from_secs(30)), None);
    pacer.refuse(seconds(201), Some(Duration::from_secs(1)), None);
    assert_eq!(pacer.closed_until(seconds(202)), Some(seconds(230)));
    // Absent and absurd waiting times are replaced.
    pacer.refuse(seconds(300), None, None);
    assert_eq!(pacer.closed_until(seconds(301)), Some(seconds(310)));
    pacer.refuse(seconds(400), Some(Duration::from_secs(1_000_000)), None);
    assert_eq!(pacer.closed_until(seconds(401)), Some(seconds(1300)));
}

#[test]
fn what_others_leave_is_spread_until_the_window_must_have_ended() {
    let now = seconds(1000);
    let mut pacer = Pacer::new(2000, WINDOW);
    let call = pacer.take(now, Priority::Pending);
    pacer.observe(now, call, headers(2000, 740));
    let sent = drain(&mut pacer, now, now + WINDOW, Priority::Pending);
    assert!((590..=600).contains(&sent.len()), "{}", sent.len());
    let first_half = sent.iter().filter(|at| **at < now + WINDOW / 2).count();
    assert!((280..=320).contains(&first_half), "{first_half}");
}

#[test]
fn a_count_that_rises_after_a_lower_one_arrived_is_a_new_window() {
    let mut pacer = Pacer::new(2000, WINDOW);
    let first = pacer.take(seconds(1000), Priority::Interactive);
    pacer.observe(seconds(1001), first, headers(2000, 45));
    assert_eq!(pacer.remaining(seconds(1001)), Some(45));
    let second = pacer.take(seconds(1002), Priority::Interactive);
    pacer.observe(seconds(1003), second, headers(2000, 1999));
    assert_eq!(pacer.remaining(seconds(1003)), Some(1999));
    assert_eq!(
        pacer.remaining(seconds(1063)),
        None,
        "the window has certainly ended"
    );
}

#[test]
fn an_answer_that_was_overtaken_is_not_taken_for_a_new_window() {
    let mut pacer = Pacer::new(2000, WINDOW);
    let slow = pacer.take(seconds(1000), Priority::Interactive);
    let quick = pacer.take(seconds(1001), Priority::Interactive);
    pacer.observe(seconds(1002), quick, headers(2000, 100));
    pacer.observe(seconds(1003), slow, headers(2000, 150));
    assert_eq!(
        pacer.remaining(seconds(1003)),
        Some(99),
        "somebody else made fifty calls in between, and the slow one may not be counted yet"
    );
}

#[test]
fn calls_under_way_are_subtracted_from_the_servers_count() {
    let mut pacer = Pacer::new(2000, WINDOW);
    let now = seconds(1000);
    let first = pacer.take(now, Priority::Interactive);
    pacer.take(now, Priority::Interactive);
    pacer.take(now, Priority::Interactive);
    pacer.observe(seconds(1001), first, headers(2000, 500));
    assert_eq!(pacer.remaining(seconds(1001)), Some(498));
}

#[test]
fn the_limit_and_the_window_are_learned_and_nonsense_is_ignored() {
    let mut pacer = Pacer::new(2000, WINDOW);
    let call = pacer.take(seconds(1), Priority::Interactive);
    let learned = RateHeaders {
        limit: Some(10_000),
        remaining: None,
        window: Some(Duration::from_mins(10)),
    };
    pacer.observe(seconds(1), call, learned);
    assert_eq!((pacer.limit(), pacer.window()), (10_000, Duration::from_mins(10)));
    let nonsense = RateHeaders {
        limit: Some(0),
        remaining: None,
        window: Some(Duration::ZERO),
    };
    pacer.observe(seconds(1), call, nonsense);
    assert_eq!((pacer.limit(), pacer.window()), (10_000, Duration::from_secs(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives when, in whichever class: no span of one window's length holds more than the limit, with
    /// room for calls that were slow on their way.
    #[test]
    fn no_window_ever_holds_more_than_the_limit(
        limit in 2_u64..400,
        arrivals in prop::collection::vec((0_u64..400, 0_usize..5), 1..1500),
    ) {
        let mut pacer = Pacer::new(limit, WINDOW);
        let mut now = At::ZERO;
        let mut sent: Vec<At> = Vec::new();
        for (gap, class) in arrivals {
            now += Duration::from_millis(gap);
            let at = now.max(pacer.earliest(now, Priority::VARIANTS[class]));
            // A caller that would have to wait for minutes has given up.
            if at < now + seconds(30) {
                now = at;
                pacer.take(now, Priority::VARIANTS[class]);
                sent.push(now);
            }
        }
        for (index, start) in sent.iter().enumerate() {
            let held = sent[index..].iter().take_while(|at| **at <= *start + WINDOW).count() as u64;
            prop_assert!(held <= limit, "{held} of {limit} in one window");
        }
    }

    /// A server with fixed windows of unknown phase refuses nothing while we are alone, even if calls and answers
    /// take up to a second each and overtake each other, and whatever a predecessor has used of the first window, as
    /// long as it left what may go out before the first answer.
    #[test]
    fn a_server_with_any_phase_never_refuses_us(
        phase in 0_u64..60_000,
        before in 0_u64..1_000,
        delays in prop::collection::vec(0_u64..1_000, 1..40),
        limit in 50_u64..3_000,
        class in 0_usize..5,
    ) {
        enum Event {
            Reaches(Stamp),
            Answers(Stamp, u64),
        }
        let mut pacer = Pacer::new(limit.min(2_000), WINDOW);
        let mut delays = delays.into_iter().cycle().map(Duration::from_millis);
        let mut events: std::collections::BTreeMap<(At, u64, u64), Event> = std::collections::BTreeMap::new();
        let reserve = COLD_START + limit * (RESERVE + BURST) / 100;
        let used_before = limit.saturating_sub(reserve) * before / 1_000;
        let (mut window, mut used, mut count) = (0, used_before, 0_u64);
        let mut now = At::ZERO;
        while now < seconds(180) {
            let may_send = now.max(pacer.earliest(now, Priority::VARIANTS[class]));
            let (event, stamp) = match events.first_entry() {
                Some(first) if first.key().0 <= may_send => {
                    now = now.max(first.key().0);
                    match first.remove() {
                        Event::Answers(stamp, remaining) => {
                            pacer.observe(now, stamp, headers(limit, remaining));
                            continue;
                        }
                        Event::Reaches(stamp) => {
                            let this = (now + Duration::from_millis(phase)).as_secs() / 60;
                            if this != window {
                                (window, used) = (this, 0);
                            }
                            used += 1;
                            prop_assert!(used <= limit, "call {used} of {limit}");
                            (Event::Answers(stamp, limit - used), stamp)
                        }
                    }
                }
                _ => {
                    now = may_send;
                    let stamp = pacer.take(now, Priority::VARIANTS[class]);
                    (Event::Reaches(stamp), stamp)
                }
            };
            count += 1;
            let delay = delays.next().unwrap_or_default();
            events.insert((now + delay, stamp.number, count), event);
        }
    }
}
