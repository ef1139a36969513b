
# Tasks that run after others: each end of a parent counts in the transaction that records it, whatever the end
# is and whoever else has the tasks in hand at that moment; nobody waits for a callback, and the scheduler for
# nobody.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'followers', conf => q{
max_prepared_transactions = 10
taskshed.max_interruptions = 2
taskshed.pause_after_failures = 0
taskshed.log_failures = off
});
my $dump = $node->basedir . '/dump';

query(
	q{
	CREATE ROLE app LOGIN;
	GRANT CREATE ON SCHEMA public TO app;
	CREATE TABLE bad (what text);
	GRANT ALL ON bad TO PUBLIC;

	-- What has become of the parents, for the time of this run
	CREATE FUNCTION results() RETURNS text LANGUAGE sql AS $$
		SELECT coalesce(string_agg(task_id || ' ' || status || coalesce(' ' || result, ''), ', ' ORDER BY task_id), 'nobody')
		FROM taskshed.parent_results() $$;
	CREATE FUNCTION tell(what text) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.ledger (what, planned) SELECT what || ' after ' || public.results(), t.run_at FROM taskshed.current_task() t $$;

	-- Waits for a lock, and fails if it is to.
	CREATE FUNCTION work(what text, lock integer DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		run taskshed.current_run := taskshed.current_task();
	BEGIN
		IF lock IS NOT NULL THEN
			PERFORM pg_advisory_xact_lock_shared(lock);
		END IF;
		PERFORM public.note(what, run.run_at);
		IF EXISTS (SELECT FROM public.bad WHERE bad.what = work.what) THEN
			RAISE division_by_zero USING MESSAGE = what || ' is bad';
		END IF;
		RETURN to_char(run.run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD');
	END $$;
	CREATE PROCEDURE work_in_pieces(what text, lock integer) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM public.note(what);
		COMMIT;
		PERFORM pg_advisory_xact_lock_shared(lock);
	END $$;
	CREATE PROCEDURE tell_in_pieces(what text) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM public.tell(what);
		COMMIT;
		PERFORM public.tell(what);
	END $$;

	-- Finds more to do, which fin is to wait for, and goes on.
	CREATE FUNCTION find_more(what text, lock integer) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM taskshed.add_task('public.work', kwargs => jsonb_build_object('what', 'more'), task_id => 'more', before => '{fin}');
		PERFORM public.hold(what, lock);
	END $$;
	CREATE PROCEDURE find_more_in_pieces(what text, lock integer) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM taskshed.add_task('public.work', kwargs => jsonb_build_object('what', 'more'), task_id => 'more', before => '{fin}');
		COMMIT;
		PERFORM taskshed.add_task('public.work', kwargs => jsonb_build_object('what', 'still more'), task_id => 'still more', before => '{fin}');
		PERFORM public.hold(what, lock);
	END $$;
	CREATE FUNCTION alert(task_id text) RETURNS void LANGUAGE sql AS $$ SELECT public.note('alert ' || task_id) $$;
});

my $holder = session($node);
my $other  = session($node);
my $third  = session($node);
$_->query('SET ROLE app') foreach ($other, $third);

# A call that adds a task, by that name, which works; more parameters may follow.
sub working
{
	my ($task_id, $more, $lock) = @_;

	return
	  qq{SELECT taskshed.add_task('public.work', kwargs => '{"what": "$task_id"}'}
	  . (defined $lock ? qq{::jsonb || '{"lock": $lock}'} : '')
	  . qq{, task_id => '$task_id'}
	  . (defined $more ? ", $more" : '') . ');';
}

# The same for one that tells what it has run after.
sub telling
{
	my ($task_id, $more) = @_;

	return add_note($task_id, $more, 'tell');
}

# In one transaction, as app
sub as_app
{
	return query("BEGIN; SET ROLE app; @_; COMMIT");
}

# What is in the ledger of those, in the order in which they ran
sub told
{
	my ($like) = @_;

	return query(
		"SELECT string_agg(what, E'\\n' ORDER BY started) FROM ledger WHERE what LIKE '$like'"
	);
}

sub await_told
{
	my ($what, $n) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await_effects($node, $what, defined $n ? $n : 1);
}

# Waits until so many runs wait for tasks that somebody has locked.
sub await_locked
{
	my ($n, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node, qq{
		SELECT count(DISTINCT pid) = $n FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE NOT l.granted AND l.locktype IN ('transactionid', 'tuple') AND a.backend_type = '$what'},
		"$n of $what wait for somebody");
}

sub clear
{
	query('SELECT taskshed.remove_all_tasks($$app$$)');
	await_calm($node);
	query('TRUNCATE ledger, bad; DELETE FROM _taskshed.run_0');
	is(query('SELECT count(*) FROM _taskshed.edge'), 0, 'nothing is left');
	return;
}

# ------------------------------------------------------------------------
# Due in the parent's own commit

$holder->query('SELECT pg_advisory_lock(1)');
as_app(
	working('p', undef, 1),
	telling('c',     "after => '{p}'"),
	telling('stays', "after => '{p}', paused => true"));
await_blocked($node, 1);
is( query(
		q{SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM taskshed.tasks}
	),
	'c waiting, p running, stays paused',
	'what runs after a task waits for it');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'c');
like(
	told('%'),
	qr/^p\nc after p succeeded \d{4}-\d\d-\d\d$/,
	'and runs after it, with its result');
is( query(
		q{SELECT a.xmin = l.xmin FROM _taskshed.alarm a JOIN _taskshed.task t USING (id), ledger l WHERE task_id = 'stays' AND what = 'p'}
	),
	't',
	'it is due in the transaction of what that has done');
is( query(
		q{SELECT waiting_for IS NULL AND run_at <= now() FROM taskshed.tasks}
	),
	't',
	'also if it is paused');
app(q{resume_task('stays')});
await_no_task($node, 'stays');
clear();

# Two that end in the same instant, while somebody holds what runs after them
foreach my $end ('ROLLBACK', 'COMMIT')
{
	$holder->query('SELECT pg_advisory_lock(1)');
	as_app(
		working('p2', undef, 1),
		working('p1', undef, 1),
		telling('c', "after => '{p1,p2}'"));
	await_blocked($node, 2);
	$other->query(q{BEGIN; SELECT taskshed.pause_task('c')});
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_locked(2, 'taskshed worker');
	another_runs($node, 'app', "$end: meanwhile");
	$other->query($end);
	await_no_task($node, 'p_');
	app(q{resume_task('c')}) if $end eq 'COMMIT';
	await_no_task($node, 'c');
	like(
		told('c after%'),
		qr/^c after p1 succeeded \S+, p2 succeeded \S+$/,
		"$end: two that end together: it runs once");
	is(join(' ', map { effects_of($node, $_) } qw(p1 p2)),
		'1 1', "$end: each has run once");
	query('TRUNCATE ledger');
}
clear();

# They are removed at that moment, in the order of their names, which is not that of their ids.
foreach my $child ('a child', 'the child', 'p2 child')
{
	$holder->query('SELECT pg_advisory_lock(1)');
	as_app((map { working($_, q{group_id => 'g'}, 1) } ('p3', 'p2', 'p1')),
		telling($child, q{after_group => 'g'}));
	await_blocked($node, 3);
	$other->query(qq{BEGIN; SELECT taskshed.pause_task('$child')});
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_locked(3, 'taskshed worker');
	$third->send(q{SELECT taskshed.remove_tasks(group_id => 'g')});
	await_locked(1, 'client backend');
	$other->query('ROLLBACK');
	like($third->result, qr/^\d$/m, "$child: the removal is done");
	await(
		$node,
		qq{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id ~ '^p\\d\$') AND
			NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id = '$child' AND (state <> 'failed' OR last_sqlstate <> '55000'))},
		"$child has run, or failed");
	is( query(
			q{SELECT count(*) FROM taskshed.runs WHERE task_id ~ '^p\d$' AND status <> 'succeeded'}
		),
		0,
		"$child: all have succeeded");
	app(qq{remove_task('$child')});
	query('TRUNCATE ledger');
}
unlike(slurp_file($node->logfile), qr/deadlock/, 'there was no deadlock');
clear();

# ------------------------------------------------------------------------
# Deadlocks: it is the end of the run that gives way, and is written again.

# A session has the last of those that a run's end needs, and asks for the first.
sub cross
{
	my ($task_id, $first, $last) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await_blocked($node, 1);
	my $pid = query(
		"SELECT worker_pid FROM taskshed.tasks WHERE task_id = '$task_id'");
	$other->query("BEGIN; SELECT taskshed.pause_task('$last')");
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_locked(1, 'taskshed worker');
	is($other->query("SELECT taskshed.pause_task('$first')"),
		't', "$task_id: who crosses a run's end goes on");
	$other->query('COMMIT');
	return $pid;
}

$holder->query('SELECT pg_advisory_lock(1)');
query(q{INSERT INTO bad VALUES ('p')});
as_app(
	working('p', q{on_failure => 'alert'}, 1),
	telling('a child', q{after => '{p}', after_status => 'ended'}),
	telling('z child', q{after => '{p}', after_status => 'failed'}));
my $pid = cross('p', 'a child', 'z child');
await_state($node, 'p', 'failed');
app(q{resume_tasks('{a child,z child}')});
await_told($_)
  foreach ('a child after p failed', 'z child after p failed', 'alert p');
is(runs_of($node, 'p'), 'failed 1', 'a failure is recorded once');
is(query("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"),
	1, 'and its worker goes on');
clear();

$holder->query('SELECT pg_advisory_lock(1)');
as_app(
	q{SELECT taskshed.add_task('work_in_pieces', kwargs => '{"what": "pieces", "lock": 1}', task_id => 'pieces');},
	telling('a child', q{after => '{pieces}'}),
	telling('z child', q{after => '{pieces}'}));
$pid = cross('pieces', 'a child', 'z child');
await_no_task($node, 'pieces');
app(q{resume_tasks('{a child,z child}')});
await_told("$_ child after pieces succeeded") foreach ('a', 'z');
is( runs_of($node, 'pieces') . ', ' . effects_of($node, 'pieces'),
	'succeeded 1, 1',
	'a procedure that has committed is not called again for that');
is(query("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"),
	1, 'and its worker goes on, too');
clear();

# ------------------------------------------------------------------------
# A member of a batch that finds more to do

foreach my $how ('find_more', 'find_more_in_pieces')
{
	$holder->query('SELECT pg_advisory_lock(2)');
	as_app(
		qq{SELECT taskshed.add_task('$how', kwargs => '{"what": "finder", "lock": 2}', task_id => 'finder', group_id => 'g');},
		q{SELECT count(taskshed.add_task('note', kwargs => '{"what": "member"}', task_id => 'm' || n, group_id => 'g')) FROM generate_series(1, 100) n;},
		telling('fin', q{after_group => 'g', after_status => 'ended'}));
	await_blocked($node, 1, 2);
	await_told('member', 100);
	await_no_task($node, 'm_');
	await_no_task($node, 'm__');
	pass("$how: nobody waits for who has said before");
	await_told('more') if $how eq 'find_more_in_pieces';
	is( query(
			q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 'fin'}
		),
		'waiting|{finder}',
		"$how: what is last waits for it");
	$holder->query('SELECT pg_advisory_unlock(2)');
	await_no_task($node, 'fin');
	is( query(
			q{SELECT string_agg(CASE WHEN what LIKE 'fin after%' THEN 'fin' ELSE what END, ', ' ORDER BY started) FROM ledger WHERE what ~ '^(fin|more|still)' AND what <> 'finder'}
		),
		$how eq 'find_more' ? 'more, fin' : 'more, still more, fin',
		"$how: and for what it has found");
	like(
		told('fin after%'),
		$how eq 'find_more'
		? qr/, more succeeded/
		: qr/, more succeeded .*, still more succeeded/,
		"$how: whose results it has");
	clear();
}

# One that fails after that has found nothing.
$holder->query('SELECT pg_advisory_lock(2)');
as_app(
	q{SELECT taskshed.add_task('find_more', kwargs => '{"what": "finder", "lock": 2}', task_id => 'finder');},
	telling('fin', q{after => '{finder}', after_status => 'ended'}));
await_blocked($node, 1, 2);
app(q{cancel_task('finder')});
await_told('fin after finder cancelled');
$holder->query('SELECT pg_advisory_unlock(2)');
is(effects_of($node, 'more'),
	0, 'what fails has not had anything to be waited for');
clear();

# ------------------------------------------------------------------------
# Changes while something runs

# A one-off task that is added again while it runs, or replaced, has not ended before its second run.
foreach my $again ('as it is', 'another')
{
	$holder->query('SELECT pg_advisory_lock(1)');
	as_app(working('p', undef, 1),
		telling('c', q{after => '{p}', after_status => 'ended'}));
	await_blocked($node, 1);
	as_app(working('p', undef, $again eq 'another' ? 2 : 1));
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, '%');
	is( query(
			q{SELECT count(*), count(*) FILTER (WHERE p.started < c.started) FROM ledger c, ledger p WHERE c.what LIKE 'c after p succeeded%' AND p.what = 'p'}
		),
		'2|2',
		"$again: the end of a run that is followed by another does not count"
	);
	query('TRUNCATE ledger; DELETE FROM _taskshed.run_0');
}

# One that waits can be run by hand; what ends meanwhile counts.
$holder->query('SELECT pg_advisory_lock(1); SELECT pg_advisory_lock(2)');
as_app(
	working('p', undef,             1),
	working('c', q{after => '{p}'}, 2),
	telling('d', q{after => '{c}'}));
app(q{run_task('c')});
await_blocked($node, 1, 1);
await_blocked($node, 1, 2);
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'p');
$holder->query('SELECT pg_advisory_unlock(2)');
await_no_task($node, '%');
is(effects_of($node, 'c') . ' ' . effects_of($node, 'p'),
	'2 1', 'one that is run by hand runs once more when its time comes');
query('TRUNCATE ledger');
as_app(
	working('p', 'paused => true'),
	working('c', q{after => '{p}'}),
	telling('d', q{after => '{c}'}));
app(q{run_task('c')});
await_told('c');
await_state($node, 'c', 'waiting');
await_no_task($node, 'd');
pass('what runs after it does so after that run');
app(q{resume_task('p')});
await_no_task($node, '%');
is(effects_of($node, 'c'), 2, 'also if nothing ends meanwhile');
clear();

# What a nightly task runs after is removed while it runs, or waits: there is no other night.
as_app(
	working('a', q{run_at => '2100-01-01', every => '1 day'}),
	working('b', q{run_at => '2100-01-01', every => '1 day'}),
	working('r', q{after => '{a,b}', on_failure => 'alert'}, 2),
	telling('e', q{after => '{r}'}));
$holder->query('SELECT pg_advisory_lock(2)');
app(q{update_execution_times(array[('a', '2020-01-01'), ('b', '2020-01-01')]::taskshed.task_execution_time[])}
);
await_blocked($node, 1, 2);
app(q{remove_task('a')});
$holder->query('SELECT pg_advisory_unlock(2)');
await_told('e after r succeeded 2020-01-01');
await_state($node, 'r', 'failed');
is( query(
		q{SELECT last_sqlstate, last_error FROM taskshed.tasks WHERE task_id = 'r'}
	),
	'55000|task "a", which it was to run after, was removed',
	'a nightly task whose parent was removed while it ran fails after the run'
);
is(runs_of($node, 'r'), 'succeeded 1, failed 1', 'both are recorded');
await_told('alert r');
clear();

# ------------------------------------------------------------------------
# Night after night

# Has these tasks run for a night.
sub night
{
	my ($time, @tasks) = @_;

	app("update_execution_time('$_', '$time')") foreach @tasks;
	return;
}

sub nightly
{
	my ($task_id, $lock) = @_;

	return working($task_id,
		q{run_at => '2100-01-01', every => '1 day', timezone => 'UTC'},
		$lock);
}

sub reports
{
	return query(
		q{SELECT string_agg(to_char(planned AT TIME ZONE 'UTC', 'DD') || ' ' || what, E'\n' ORDER BY started) FROM ledger WHERE what LIKE 'r %'}
	);
}

as_app(nightly('a', 3), nightly('b', 4), telling('r', "after => '{a,b}'"));
is(query(q{SELECT run_type FROM taskshed.tasks WHERE task_id = 'r'}),
	'recurring', 'what runs after nightly tasks is nightly');
query(q{INSERT INTO bad VALUES ('b')});
night('2020-01-01', 'a', 'b');
await($node,
	q{SELECT count(*) = 2 FROM taskshed.tasks WHERE task_id IN ('a', 'b') AND run_count = 1 AND state = 'scheduled'}
);
is( query(
		q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 'r'}),
	'waiting|{b}',
	'one fails: there is no report');
is( query(q{SELECT ended, succeeded, failed, "left" FROM taskshed.followers}),
	'2|1|1|0', 'as can be seen');

# The next night b is first, and a has not ended yet.
query('TRUNCATE bad');
$holder->query('SELECT pg_advisory_lock(3)');
night('2020-01-02', 'a', 'b');
await_blocked($node, 1, 3);
await($node,
	q{SELECT run_count = 2 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'b'}
);
is(query(q{SELECT state FROM taskshed.tasks WHERE task_id = 'r'}),
	'waiting', 'the half of a bad night is not the half of the next');
$holder->query('SELECT pg_advisory_unlock(3)');
await_told('r after a succeeded 2020-01-02, b succeeded 2020-01-02');
is( reports(),
	'02 r after a succeeded 2020-01-02, b succeeded 2020-01-02',
	'the report is for that night');

# and then a.
$holder->query('SELECT pg_advisory_lock(4)');
night('2020-01-03', 'a', 'b');
await_blocked($node, 1, 4);
await($node,
	q{SELECT run_count = 3 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'a'}
);
is( query(
		q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 'r'}),
	'waiting|{b}',
	'the other one first');
$holder->query('SELECT pg_advisory_unlock(4)');
await_told('r after a succeeded 2020-01-03, b succeeded 2020-01-03');

# One of them alone is half a round; it counts with what the other does next.
night('2020-01-04', 'b');
await($node,
	q{SELECT run_count = 4 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'b'}
);
is( query(
		q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 'r'}),
	'waiting|{a}',
	'one alone');
night('2020-01-05', 'a');
await_told('r after a succeeded 2020-01-05, b succeeded 2020-01-04');
like(reports(), qr/\n05 [^\n]*$/, 'the report is for the later time');

# A run by day is one.
app(q{run_tasks('{b}')});
await_told('b', 4);
await_state($node, 'b', 'scheduled');
is( query(
		q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 'r'}),
	'waiting|{a}',
	'a run by hand counts');
app(q{run_tasks('{a}')});
await($node, q{SELECT count(*) = 4 FROM ledger WHERE what LIKE 'r %'});
is( query(
		q{SELECT count(*) FROM ledger r WHERE what LIKE 'r %' AND planned = (SELECT max(planned) FROM ledger WHERE what = 'a')}
	),
	1,
	'and the report is for its time');
await_state($node, 'r', 'waiting');

# A task that is run by hand itself reads what there is, and waits on.
app(q{run_tasks('{r}')});
await_told('r after nobody');
await_state($node, 'r', 'waiting');
pass('by hand, it waits again');
clear();

# It is still running when the next round ends.
as_app(
	nightly('a'),
	nightly('b'),
	q{CREATE FUNCTION tell_late(what text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(5);
		PERFORM public.tell(what);
	END $$;},
	add_note('r', "after => '{a,b}'", 'tell_late'));
$holder->query('SELECT pg_advisory_lock(5)');
night('2020-01-01', 'a', 'b');
await_blocked($node, 1, 5);
night('2020-01-02', 'a', 'b');
await($node,
	q{SELECT count(*) = 2 FROM taskshed.tasks WHERE task_id IN ('a', 'b') AND run_count = 2 AND state = 'scheduled'}
);
$holder->query('SELECT pg_advisory_unlock(5)');
await_told('r after a succeeded 2020-01-02, b succeeded 2020-01-02');
is( reports(),
	"01 r after a succeeded 2020-01-01, b succeeded 2020-01-01\n02 r after a succeeded 2020-01-02, b succeeded 2020-01-02",
	'a round that ends while it runs is the next, and does not change what it reads'
);
await_state($node, 'r', 'waiting');
$holder->query('SELECT pg_advisory_lock(5)');
night('2020-01-03', 'a', 'b');
await_blocked($node, 1, 5);
night('2020-01-04', 'b');
await($node,
	q{SELECT run_count = 4 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'b'}
);
$holder->query('SELECT pg_advisory_unlock(5)');
await_told('r after a succeeded 2020-01-03, b succeeded 2020-01-03');
await_state($node, 'r', 'waiting');
is(query(q{SELECT waiting_for FROM taskshed.tasks WHERE task_id = 'r'}),
	'{a}', 'half a round that ends while it runs counts');
night('2020-01-05', 'a');
await_told('r after a succeeded 2020-01-05, b succeeded 2020-01-04');
await_state($node, 'r', 'waiting');

# It ends with its parents: their last round is its last.
as_app(q{SELECT taskshed.update_tasks('{"max_runs": 5}', '{a,b}');});
night('2020-01-06', 'a', 'b');
await_told('r after a succeeded 2020-01-06, b succeeded 2020-01-06');
await_no_task($node, '%');
pass('a task is gone after the last round');
clear();

# ------------------------------------------------------------------------
# Ends of all kinds

# A parent that has failed is waited for, until somebody has it tried again.
query(q{INSERT INTO bad VALUES ('p')});
as_app(
	working('p'),
	telling('c',  "after => '{p}'"),
	telling('c2', "after => '{c}'"));
await_state($node, 'p', 'failed');
is( query(
		q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 'c'}),
	'waiting|{p}',
	'a failed parent is waited for');
query('TRUNCATE bad');
app(q{retry_task('p')});
await_no_task($node, '%');
like(told('c2 %'), qr/^c2 after c succeeded$/, 'until it is tried again');
clear();

# It is tried again by itself: only its last attempt counts.
query(q{INSERT INTO bad VALUES ('p')});
as_app(
	working('p', q{max_attempts => 2, retry_delay => '100 ms'}),
	telling('c', q{after => '{p}', after_status => 'ended'}),
	telling('f', q{after => '{p}', after_status => 'failed'}));
await_told('c after p failed');
await_told('f after p failed');
is( query(
		q{SELECT (SELECT min(started_at) FROM taskshed.runs WHERE task_id IN ('c', 'f')) > max(started_at) FROM taskshed.runs WHERE task_id = 'p' AND attempt = 2}
	),
	't',
	'only the last attempt counts');
clear();

# Has a parent end in some way, and looks at what becomes of those after it.
sub ends
{
	my ($status, $parent, $action) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$holder->query('SELECT pg_advisory_lock(1)');
	as_app(
		$parent,
		telling('s', q{after => '{p}'}),
		telling('e', q{after => '{p}', after_status => 'ended'}),
		telling('f', q{after => '{p}', after_status => 'failed'}));
	&$action if defined $action;
	await_told("e after p $status");
	await_told("f after p $status");
	is( query(
			q{SELECT state, waiting_for FROM taskshed.tasks WHERE task_id = 's'}
		),
		'waiting|{p}',
		"$status: what runs after a success waits, what runs after an end or a failure runs"
	);
	$holder->query('SELECT pg_advisory_unlock(1)');
	app(q{remove_task('p')});
	is( query(
			q{SELECT state, last_sqlstate, last_error FROM taskshed.tasks WHERE task_id = 's'}
		),
		'failed|55000|task "p", which it was to run after, was removed',
		"$status: it fails when that is removed");
	app(q{retry_task('s')});
	await_no_task($node, 's');
	is( told('s %'),
		"s after p $status",
		"$status: it can be run nevertheless");
	clear();
	return;
}

ends('timeout', working('p', q{timeout => '50 ms'}, 1));
ends(
	'cancelled',
	working('p', undef, 1),
	sub { await_blocked($node, 1); app(q{cancel_task('p')}); });
ends(
	'interrupted',
	working('p', undef, 1),
	sub {
		for my $n (1 .. 2)
		{
			await_blocked($node, 1);
			my $lost = query(
				q{SELECT pg_terminate_backend(worker_pid), worker_pid FROM taskshed.tasks WHERE task_id = 'p'}
			) =~ s/^t\|//r;
			await($node,
				"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $lost)"
			);
		}
	});
ends('missed',
	working('p', q{run_at => '2020-01-01', start_within => '1 s'}));
query(q{CREATE FUNCTION passing(what text) RETURNS void LANGUAGE sql AS ''});
ends(
	'failed',
	add_note('p', 'paused => true', 'passing'),
	sub {
		query('DROP FUNCTION passing');
		app(q{resume_task('p')});
	});

# The owner of all of them is dropped: they fail one after the other.
query(
	q{CREATE ROLE passing LOGIN; SET ROLE passing; SELECT taskshed.add_task('note', '2100-01-01', '{"what": "p"}', task_id => 'p'); SELECT taskshed.add_task('note', kwargs => '{"what": "c"}', task_id => 'c', after => '{p}', after_status => 'ended');
	RESET ROLE; BEGIN; SELECT taskshed.update_execution_time('p', now(), 'passing'); DROP ROLE passing; COMMIT}
);
await_state($node, 'p', 'failed');
await_state($node, 'c', 'failed');
is(query(q{SELECT count(DISTINCT last_sqlstate) FROM taskshed.tasks}),
	1, 'tasks of a role that is gone fail, one after the other');
query(
	q{SELECT taskshed.set_owner('app', owner => (SELECT owner FROM taskshed.tasks LIMIT 1))}
);
is(query(q{SELECT count(*) FROM taskshed.tasks WHERE owner = 'app'}),
	2, 'and can be given to another');
clear();

# ------------------------------------------------------------------------
# Chains

# What cannot come any more is skipped, and with it all that would have run after that.
as_app(
	working('p', 'paused => true'),
	telling('k0', q{after => '{p}', after_status => 'failed'}),
	q{SELECT count(taskshed.add_task('tell', kwargs => '{"what": "k"}', task_id => 'k' || n, after => array['k' || n - 1])) FROM generate_series(1, 2000) n;},
	telling('last',  q{after => '{k2000}', after_status => 'ended'}),
	telling('never', q{after => '{k1000,k0}', after_status => 'failed'}));
app(q{resume_task('p')});
await_no_task($node, '%');
is( told('last %'),
	'last after k2000 skipped',
	'a chain is skipped to its end');
is( query(
		q{SELECT count(*), count(DISTINCT task_id), count(*) FILTER (WHERE started_at IS NULL) FROM taskshed.runs WHERE status = 'skipped' AND task_id ~ '^k\d'}
	),
	'2001|2001|2001',
	'all that were skipped are recorded');
is(runs_of($node, 'never'), 'skipped 1', 'what is skipped has not failed');
clear();

# A chain of nightly tasks goes on the next night.
as_app(
	nightly('a'),
	telling('f', q{after => '{a}', after_status => 'failed'}),
	telling('r', q{after => '{f}', after_status => 'ended'}),
	telling('s', q{after => '{f}'}));
night('2020-01-01', 'a');
await_told('r after f skipped');
query(q{INSERT INTO bad VALUES ('a')});
night('2020-01-02', 'a');
await_told('r after f succeeded');
await_told('s after f succeeded');
is( query(
		q{SELECT string_agg(to_char(planned AT TIME ZONE 'UTC', 'DD') || ' ' || what, ', ' ORDER BY planned, what) FROM ledger WHERE what <> 'a'}
	),
	'01 r after f skipped, 02 f after a failed, 02 r after f succeeded, 02 s after f succeeded',
	'what is skipped one night runs the next, for the same time as all');
clear();

# Procedures
as_app(
	working('p'),
	q{SELECT taskshed.add_task('tell_in_pieces', kwargs => '{"what": "c"}', task_id => 'c', after => '{p}');},
	telling('d', q{after => '{c}'}));
await_no_task($node, '%');
like(
	told('_ after%'),
	qr/^c after p succeeded (\S+)\nc after p succeeded \g1\nd after c succeeded$/,
	'a procedure in between reads the results after a commit, too');
clear();

# ------------------------------------------------------------------------
# Prepared transactions

query(  'BEGIN; SET LOCAL ROLE app; '
	  . working('p')
	  . telling('c', "after => '{p}'")
	  . "RESET ROLE; PREPARE TRANSACTION 'both'");
query(q{COMMIT PREPARED 'both'});
await_no_task($node, '%');
like(
	told('c %'),
	qr/^c after p succeeded/,
	'both are added by a prepared transaction');
foreach my $end ('COMMIT', 'ROLLBACK')
{
	query('TRUNCATE ledger');
	$holder->query('SELECT pg_advisory_lock(1)');
	as_app(working('p', undef, 1));
	await_blocked($node, 1);
	query(  'BEGIN; SET LOCAL ROLE app; '
		  . telling('c', "after => '{p}'")
		  . "RESET ROLE; PREPARE TRANSACTION 'one'");
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_locked(1, 'taskshed worker');
	another_runs($node, 'app', "prepared, $end: meanwhile");
	query("$end PREPARED 'one'");
	await_no_task($node, '%');
	is( query(
			q{SELECT count(*) FROM ledger WHERE what LIKE 'c after p succeeded%'}
		),
		$end eq 'COMMIT' ? 1 : 0,
		"prepared, $end: a run whose task it concerns ends after that");
}
clear();

# ------------------------------------------------------------------------
# The scheduler waits for nobody.

$holder->query('SELECT pg_advisory_lock(1)');
as_app(working('p', undef, 1),
	telling('c', q{after => '{p}', after_status => 'ended'}));
await_blocked($node, 1);
query(
	q{UPDATE _taskshed.alarm SET interruptions = 1 WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = 'p')}
);
$other->query(q{BEGIN; SELECT taskshed.pause_task('c')});
query(
	q{SELECT pg_terminate_backend(worker_pid) FROM taskshed.tasks WHERE task_id = 'p'}
);
another_runs($node, 'app', "while a lost run cannot be recorded, $_")
  foreach (1 .. 3);
is(query(q{SELECT count(*) FROM taskshed.runs WHERE task_id = 'p'}),
	0, 'it is not recorded without what runs after it');
$other->query('ROLLBACK');
await_state($node, 'p', 'failed');
await_told('c after p interrupted');
$holder->query('SELECT pg_advisory_unlock(1)');
clear();

# A task that has failed long ago is removed, as if somebody did.
query(q{INSERT INTO bad VALUES ('p'), ('q')});
as_app(
	working('p'),
	working('q'),
	telling('c',  q{after => '{p}'}),
	telling('e',  q{after => '{c}', after_status => 'ended'}),
	telling('c2', q{after => '{q}'}));
await_state($node, $_, 'failed') foreach qw(p q);
query(
	q{UPDATE _taskshed.alarm SET failed_at = failed_at - interval '1 day' WHERE failed_at IS NOT NULL}
);
$other->query(q{BEGIN; SELECT taskshed.pause_task('e')});
set_and_reload($node, 'taskshed.failed_retention' => '1h');
await_no_task($node, 'q');
another_runs($node, 'app', 'while one is held');
is( query(
		q{SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM taskshed.tasks}
	),
	'c waiting, c2 failed, e waiting, p failed',
	'one whose removal concerns what somebody holds stays as long');
$other->query('ROLLBACK');
await_told('e after c failed');
is( query(
		q{SELECT string_agg(task_id || ' ' || state || ' ' || last_sqlstate, ', ' ORDER BY task_id) FROM taskshed.tasks}
	),
	'c failed 55000, c2 failed 55000',
	'then what has waited for it fails');
set_and_reload($node, 'taskshed.failed_retention' => undef);
clear();

# ------------------------------------------------------------------------
# Dump and restore

as_app(
	working('done'),
	working('open', 'paused => true'),
	telling('c', q{after => '{done,open}'}),
	telling('d', q{after => '{c}', after_status => 'ended'}),
	nightly('a'),
	nightly('b'),
	telling('r', q{after => '{a,b}'}),
	telling('s', q{after => '{open}', after_status => 'failed'}));
night('2020-01-01', 'a');
await_no_task($node, 'done');
await($node,
	q{SELECT run_count = 1 AND state = 'scheduled' FROM taskshed.tasks WHERE task_id = 'a'}
);

my $all    = q{SELECT t FROM taskshed.tasks AS t ORDER BY task_id};
my $edges  = q{SELECT f FROM taskshed.followers f ORDER BY task_id};
my $before = query($all);
my $joined = query($edges);
foreach my $format ('plain', 'custom')
{
	query("CREATE DATABASE $format");
	$node->command_ok(
		[
			'pg_dump', "--format=$format", '--file', "$dump.$format",
			'postgres'
		],
		"pg_dump, $format");
	$node->command_ok(
		$format eq 'plain'
		? [
			'psql',            '-X', '-q',            '-v',
			'ON_ERROR_STOP=1', '-f', "$dump.$format", $format
		  ]
		: [
			'pg_restore', '--exit-on-error',
			'--dbname',   $format,
			"$dump.$format"
		],
		"restored, $format");
	is( query($all, $format),
		$before =~ s/,(?:due|scheduled|waiting),/,held,/gr,
		"$format: the tasks are what they were");
	query('SELECT taskshed.activate()', $format);
	is(query($all, $format),
		$before, "$format: they still are after activate()");
	is(query($edges, $format), $joined, "$format: and what has come of them");
	query(
		q{SET ROLE app; SELECT taskshed.resume_task('open'); SELECT taskshed.update_execution_time('b', '2020-01-02')},
		$format);
	await(
		$node,
		q{SELECT count(*) = 3 AND bool_or(task_id = 'r' AND run_count = 1 AND state = 'waiting') FROM taskshed.tasks},
		"$format: all has run",
		$format);
	is( query(
			q{SELECT string_agg(regexp_replace(what, '(done|open) succeeded [\d-]+', '\1 succeeded', 'g'), E'\n' ORDER BY what) FROM ledger WHERE what LIKE '% after %'},
			$format),
		"c after done succeeded, open succeeded\nd after c succeeded\nr after a succeeded 2020-01-01, b succeeded 2020-01-02",
		"$format: the graph goes on");
	is( query(
			q{SELECT status FROM taskshed.runs WHERE task_id = 's'}, $format),
		'skipped',
		"$format: and what is to be skipped is");
}
is(query($all), $before, 'the first database has not changed');

foreach my $session ($holder, $other, $third)
{
	$session->query('SELECT 1');
	$session->quit;
}
no_crash($node, 'deadlock detected.*taskshed worker');
$node->stop;
done_testing();
