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

#[test]
fn a_new_budget_starts_cold_and_then_keeps_the_sustained_rate() {
    let mut pacer = Pacer::new(2000, WINDOW);
    let at_once = drain(
        &mut pacer,
        At::ZERO,
        Duration::from_nanos(1),
        Priority::Interactive,
    );
    assert_eq!(at_once.len(), 10);
    let rest = drain(&mut pacer, Duration::from_nanos(1), WINDOW, Priority::Interactive);
    assert!((1700..1920).contains(&(at_once.len() + rest.len())));
}

/// Found as a first sync that took five seconds after each start of the operator, and one second later on.
#[test]
fn the_first_count_of_the_server_ends_a_cold_start() {
    let now = Duration::from_millis(100);
    let instant = now + Duration::from_nanos(1);
    let at_once = |remaining| {
        let mut pacer = Pacer::new(2000, WINDOW);
        let call = pacer.take(At::ZERO, Priority::Background);
        pacer.observe(now, call, headers(2000, remaining));
        drain(&mut pacer, now, instant, Priority::Background).len()
    };
    assert_eq!(at_once(1999), 143);
    // Whoever ran before has used most of the window.
    assert_eq!(at_once(600), 0);
    let mut refused = Pacer::new(2000, WINDOW);
    let call = refused.take(At::ZERO, Priority::Interactive);
    refused.refuse(now, Some(Duration::ZERO));
    refused.observe(now, call, headers(2000, 1999));
    assert!(drain(&mut refused, now, instant, Priority::Interactive).len() <= 10);
}

#[test]
fn every_class_may_begin_at_once() {
    for (&class, expected) in Priority::VARIANTS.iter().zip([10, 10, 9, 8]) {
        let mut pacer = Pacer::new(2000, WINDOW);
        let at_once = drain(&mut pacer, At::ZERO, Duration::from_nanos(1), class);
        assert_eq!(at_once.len(), expected, "{class:?}");
        // Without a count, as behind a proxy that drops headers, the rest waits for its share of the bucket.
        let next = pacer.earliest(At::ZERO, Priority::Background);
        assert!(next < seconds(3), "{class:?}: {next:?}");
    }
    let mut tiny = Pacer::new(5, WINDOW);
    assert_eq!(tiny.earliest(At::ZERO, Priority::Background), At::ZERO);
    tiny.take(At::ZERO, Priority::Background);
    assert!(tiny.earliest(At::ZERO, Priority::Interactive) > At::ZERO);
}

#[test]
fn an_idle_bucket_holds_a_burst_and_leaves_each_class_its_share() {
    let later = seconds(1000);
    let instant = later + Duration::from_nanos(1);
    // usable 1920, so the bucket holds 192
    for (&class, expected) in Priority::VARIANTS.iter().zip([192, 183, 173, 144]) {
        let mut pacer = Pacer::new(2000, WINDOW);
        assert_eq!(
            drain(&mut pacer, later, instant, class).len(),
            expected,
            "{class:?}"
        );
    }
}

#[test]
fn a_refusal_closes_the_budget_for_everybody_and_reopens_it_gently() {
    let mut pacer = Pacer::new(2000, WINDOW);
    pacer.refuse(seconds(100), Some(Duration::from_secs(7)));
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
    pacer.refuse(seconds(200), Some(Duration::from_secs(30)));
    pacer.refuse(seconds(201), Some(Duration::from_secs(1)));
    assert_eq!(pacer.closed_until(seconds(202)), Some(seconds(230)));
    // Absent and absurd waiting times are replaced.
    pacer.refuse(seconds(300), None);
    assert_eq!(pacer.closed_until(seconds(301)), Some(seconds(310)));
    pacer.refuse(seconds(400), Some(Duration::from_secs(1_000_000)));
    assert_eq!(pacer.closed_until(seconds(401)), Some(seconds(1300)));
}

#[test]
fn no_class_takes_what_the_server_keeps_for_those_above() {
    let now = seconds(1000);
    for (&class, reserved) in Priority::VARIANTS.iter().zip([40, 140, 240, 540]) {
        let mut pacer = Pacer::new(2000, WINDOW);
        let call = pacer.take(now, class);
        pacer.observe(now, call, headers(2000, reserved));
        assert_eq!(pacer.earliest(now, class), now + WINDOW, "{class:?}");
        // One more is one call, paced over the rest of the window.
        let mut pacer = Pacer::new(2000, WINDOW);
        let call = pacer.take(now, class);
        pacer.observe(now, call, headers(2000, reserved + 1));
        assert_eq!(drain(&mut pacer, now, now + WINDOW, class).len(), 0);
        assert_eq!(pacer.earliest(now, class), now + WINDOW);
    }
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
        Some(100),
        "somebody else made fifty calls in between"
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
        arrivals in prop::collection::vec((0_u64..400, 0_usize..4), 1..1500),
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
        class in 0_usize..4,
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

/// Found as background calls that were spread over the whole window although nobody else made any.
#[test]
fn a_class_that_is_alone_may_use_its_burst_whatever_the_server_counts() {
    let mut pacer = Pacer::new(2000, Duration::from_mins(1));
    let start = Duration::from_mins(5);
    let mut now = start;
    for call in 0..144 {
        now = pacer.earliest(now, Priority::Background).max(now);
        assert_eq!(now, start, "call {call}");
        let stamp = pacer.take(now, Priority::Background);
        let headers = RateHeaders {
            limit: Some(2000),
            remaining: Some(1999 - call),
            window: Some(Duration::from_mins(1)),
        };
        pacer.observe(now, stamp, headers);
    }
    assert!(pacer.earliest(now, Priority::Background) > now);
}
