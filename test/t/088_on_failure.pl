
# on_failure and notify: whoever wants to hear of the end of a run does, in the transaction that records
# it, and however the run has failed; and nobody waits for that.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'told',
	init => [ allows_streaming => 1 ],
	conf => q{
taskshed.max_workers = 2
taskshed.max_interruptions = 1
});

query(
	q{
	CREATE ROLE app LOGIN;
	GRANT CREATE ON SCHEMA public TO app;
	CREATE TABLE alerts (n serial, told jsonb);
	CREATE TABLE switch (fails boolean);
	INSERT INTO switch VALUES (true);
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
	GRANT ALL ON alerts, alerts_n_seq, switch, parent, child TO app;
	SET ROLE app;
	CREATE FUNCTION alert(kwargs jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.alerts (told) VALUES (kwargs)';
	CREATE FUNCTION alert_some(task_id text, sqlstate text, attempt int, run_at timestamptz, more int DEFAULT 7) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.alerts (told) VALUES (jsonb_build_object('task_id', task_id, 'sqlstate', sqlstate, 'attempt', attempt,
			'late', now() - run_at < interval '1 hour', 'more', more)) $$;
	CREATE PROCEDURE alert_by_procedure(task_id text, message text) LANGUAGE sql AS $$
		INSERT INTO public.alerts (told) VALUES (jsonb_build_object('task_id', task_id, 'message', message)) $$;
	CREATE FUNCTION fail(why text DEFAULT 'for good') RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it fails %', why USING DETAIL = 'so it is'; END $$;
	CREATE FUNCTION fail_at_commit() RETURNS void LANGUAGE sql AS 'INSERT INTO public.child VALUES (4711)';
	CREATE FUNCTION wait() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1000)';
	CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$ SELECT 'done' $$;
	CREATE FUNCTION fail_if() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF (SELECT fails FROM public.switch) THEN RAISE EXCEPTION 'switched on'; END IF; END $$;
	CREATE FUNCTION gone() RETURNS void LANGUAGE sql AS ''});

# Those who were told of a task's ends, by what they were told.
sub alerts_of
{
	my ($task_id, $what) = @_;

	return query(
		qq{SELECT string_agg($what, ', ' ORDER BY n) FROM alerts WHERE told->>'task_id' = '$task_id'}
	);
}

sub await_alerts
{
	my ($task_id, $n) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT count(*) = $n FROM alerts WHERE told->>'task_id' = '$task_id'",
		"$n have been told of $task_id");
}

# ------------------------------------------------------------------------
# What is told, and by which arguments

app(q{add_task('fail', task_id => 'all', group_id => 'g', kwargs => '{"why": "at once"}', on_failure => 'alert')}
);
await_alerts('all', 1);
is( alerts_of(
		'all',
		q{concat_ws(' ', told->>'group_id', told->>'owner', told->>'callback', told->'task_kwargs', told->>'attempt', told->>'status',
			told->>'sqlstate', told->>'message', told->>'detail', told->>'failures_in_row', told->'queue', told->'queue_key')}
	),
	'g app public.fail {"why": "at once"} 1 failed P0001 it fails at once so it is 1 null null',
	'all that can be told');
is( query(
		q{SELECT (told->>'run_id')::bigint = run_id, (told->>'run_at')::timestamptz = scheduled_at
		FROM alerts, taskshed.runs WHERE told->>'task_id' = 'all' AND task_id = 'all'}
	),
	't|t',
	'which run it was');
is( query(
		q{SELECT task_id, owner, status FROM taskshed.runs WHERE task_id ~ '^on_failure'}
	),
	'on_failure/all|app|succeeded',
	'it is a task of the same owner, named after the one that has failed');
app(q{add_task('fail', task_id => 'some', on_failure => 'alert_some')});
await_alerts('some', 1);
is( alerts_of('some', 'told::text'),
	'{"late": true, "more": 7, "attempt": 1, "task_id": "some", "sqlstate": "P0001"}',
	'what a function has arguments for');
app(q{add_task('fail', task_id => 'procedure', on_failure => 'alert_by_procedure')}
);
await_alerts('procedure', 1);
app(q{add_callback('bell', 'alert')});
app(q{add_task('fail', task_id => 'alias', on_failure => 'bell')});
await_alerts('alias', 1);
app(q{add_callback('bell', 'alert_by_procedure', true)});
app(q{retry_task('alias')});
await_alerts('alias', 2);
is( alerts_of('alias', q{coalesce(told->>'status', 'procedure')}),
	'failed, procedure',
	'an alias is looked up when it is called');
is( query(
		q{SELECT on_failure, notify FROM taskshed.tasks WHERE task_id IN ('all', 'alias') ORDER BY task_id}
	),
	"bell|\npublic.alert|",
	'the view shows it');

# ------------------------------------------------------------------------
# However it has failed, and once

app(q{add_task('fail', task_id => 'attempts', max_attempts => 3, retry_delay => '0', on_failure => 'alert')}
);
await_alerts('attempts', 1);
is(alerts_of('attempts', q{told->>'attempt'}),
	3, 'not while it is tried again');
app(q{add_task('fail_at_commit', task_id => 'commit', on_failure => 'alert')}
);
await_alerts('commit', 1);
is(alerts_of('commit', q{told->>'sqlstate'}), '23503', 'at the commit');
app(q{add_task('wait', task_id => 'timeout', timeout => '10 ms', on_failure => 'alert')}
);
await_alerts('timeout', 1);
is(alerts_of('timeout', q{told->>'status'}), 'timeout', 'by its timeout');
app(q{add_task('gone', run_at => now() + '1 day', task_id => 'dropped', on_failure => 'alert')}
);
query('DROP FUNCTION gone()');
app(q{run_task('dropped')});
await_alerts('dropped', 1);
is(alerts_of('dropped', q{told->>'sqlstate'}),
	'42883', 'since its function is gone');
app(q{add_task('work', run_at => now() - interval '1 day', start_within => '1 hour', task_id => 'missed', on_failure => 'alert')}
);
await_alerts('missed', 1);
is(alerts_of('missed', q{told->>'status'}), 'missed', 'since it is too late');

app(q{add_task('wait', task_id => 'killed', on_failure => 'alert')});
await_state($node, 'killed', 'running');
$node->stop('immediate');
$node->start;
await_alerts('killed', 1);
is(alerts_of('killed', q{told->>'status'}),
	'interrupted', 'when its worker is lost, by the scheduler');

app(q{add_task('wait', task_id => 'cancelled', on_failure => 'alert')});
await_state($node, 'cancelled', 'running');
app(q{cancel_task('cancelled')});
await_state($node, 'cancelled', 'failed');
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE task_id = 'on_failure/cancelled'}
	),
	0,
	'but not of what somebody has cancelled');

# ------------------------------------------------------------------------
# Recurring tasks

app(q{add_task('fail_if', every => '1 day', task_id => 'daily', on_failure => 'alert', max_runs => 1000)}
);
await_alerts('daily', 1);
for my $n (2 .. 9)
{
	app(q{update_execution_time('daily', now())});
	await($node,
		"SELECT failures_in_row = $n FROM taskshed.tasks WHERE task_id = 'daily'"
	);
}
await_alerts('daily', 4);
is(alerts_of('daily', q{told->>'failures_in_row'}),
	'1, 2, 4, 8', 'at each power of two');
query('UPDATE switch SET fails = false');
app(q{update_execution_time('daily', now())});
await_alerts('daily', 5);
app(q{update_execution_time('daily', now())});
await($node,
	q{SELECT count(*) = 2 FROM taskshed.runs WHERE task_id = 'daily' AND status = 'succeeded'}
);
await_calm($node);
is( alerts_of('daily', q{told->>'status'}),
	'failed, failed, failed, failed, recovered',
	'and once when it is over');

query('UPDATE switch SET fails = true');
$node->safe_psql('postgres',
	'ALTER ROLE app SET taskshed.pause_after_failures = 3');
await($node,
	q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'taskshed worker')}
);
app(q{add_task('fail_if', every => '1 ms', task_id => 'often', on_failure => 'alert')}
);
await_state($node, 'often', 'paused');
await_calm($node);
is( query(
		q{SELECT told->>'failures_in_row' FROM alerts WHERE told->>'task_id' = 'often' ORDER BY n DESC LIMIT 1}
	),
	3,
	'when it is paused');
query('ALTER ROLE app RESET taskshed.pause_after_failures');

# ------------------------------------------------------------------------
# Many failures are one alert

app(q{add_task('fail', task_id => 'muted', on_failure => 'alert', kwargs => '{"why": "1"}')}
);
await_alerts('muted', 1);
my $holder = session($node);
$holder->query('BEGIN; LOCK TABLE alerts');
for my $n (2 .. 20)
{
	app(qq{add_task('fail', task_id => 'muted', paused => false, on_failure => 'alert', kwargs => '{"why": "$n"}')}
	);
	await_state($node, 'muted', 'failed');
	await($node,
		qq{SELECT last_error = 'it fails $n' FROM taskshed.tasks WHERE task_id = 'muted'}
	);
}
is( query(
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id ~ '^on_failure/muted'}
	),
	1,
	'failures while one waits, or runs, are told by one');
$holder->query('COMMIT');
await(
	$node,
	q{SELECT EXISTS (SELECT FROM alerts WHERE told->>'message' = 'it fails 20')},
	'the last failure is told');
await_calm($node);
cmp_ok(query(q{SELECT count(*) FROM alerts WHERE told->>'task_id' = 'muted'}),
	'<=', 4, 'and not each');

# Somebody who is just changing it keeps nobody waiting.
app(q{add_callback('held', 'alert'); SET ROLE app; SELECT taskshed.add_task('fail', task_id => 'held', on_failure => 'held', kwargs => '{"why": "1"}')}
);
await_alerts('held', 1);
app(q{add_callback('held', 'fail', true)});
app(q{retry_task('held')});
await_state($node, 'on_failure/held', 'failed');
$holder->query(
	q{BEGIN; SELECT taskshed.pause_task('on_failure/held', owner => 'app')});
app(q{add_callback('held', 'alert', true)});
app(q{retry_task('held')});
await_alerts('held', 2);
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE task_id ~ '^on_failure/held/[0-9a-f]{16}$'}
	),
	1,
	'while somebody changes the one that is there, another tells of it');
$holder->query('ROLLBACK');

# ------------------------------------------------------------------------
# It is a task like others

is( query(
		q{SELECT state, last_sqlstate FROM taskshed.tasks WHERE task_id = 'on_failure/held'}
	),
	'failed|P0001',
	'one that fails has failed');
is( query(
		q{SELECT count(*) FROM taskshed.tasks WHERE task_id ~ '^on_failure/on_failure'}
	),
	0,
	'and nobody is told of that');
app(q{add_task('fail', run_at => now() + '1 day', task_id => repeat('long', 63), on_failure => 'alert')}
);
app(q{run_task(repeat('long', 63))});
await_alerts('long' x 63, 1);
is( query(
		q{SELECT max(length(task_id)) FROM taskshed.runs WHERE task_id ~ '^on_failure/long'}
	),
	255,
	'its name is no longer than names may be');

set_and_reload($node, 'taskshed.max_tasks_per_role' => '1');
app(q{remove_all_tasks()});
app(q{add_task('fail', task_id => 'limit', on_failure => 'alert')});
await_alerts('limit', 1);
set_and_reload($node, 'taskshed.max_tasks_per_role' => undef);

# One that cannot be called fails for itself.
app(q{add_task('fail', task_id => 'nowhere', validate => false, on_failure => 'there_is_none')}
);
await_state($node, 'on_failure/nowhere', 'failed');
is( query(
		q{SELECT t.state, h.last_sqlstate FROM taskshed.tasks t, taskshed.tasks h WHERE t.task_id = 'nowhere' AND h.task_id = 'on_failure/nowhere'}
	),
	'failed|42883',
	'one that cannot be called fails for itself');

# ------------------------------------------------------------------------
# What others do to it

# A task that is given away during its run has the callback of its new owner by then.
query(
	q{
	CREATE ROLE other LOGIN;
	GRANT CREATE ON SCHEMA public TO other;
	GRANT ALL ON alerts, alerts_n_seq TO other;
	SET ROLE other;
	CREATE FUNCTION others_alert(kwargs jsonb) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO public.alerts (told) VALUES (kwargs || jsonb_build_object('called_as', current_user, 'by', 'other')) $$;
	CREATE FUNCTION bell(kwargs jsonb) RETURNS void LANGUAGE sql AS
		$$ INSERT INTO public.alerts (told) VALUES (kwargs || jsonb_build_object('called_as', current_user, 'by', 'other')) $$}
);
$holder->query('SELECT pg_advisory_lock(1)');
app(q{remove_all_tasks(); CREATE FUNCTION fail_later() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_advisory_xact_lock(1); RAISE EXCEPTION 'later'; END $$;
	SELECT taskshed.add_task('fail_later', task_id => 'given', on_failure => 'alert')}
);
await_blocked($node, 1);
query(
	q{SELECT taskshed.set_owner('other', '{given}', owner => 'app'); SELECT taskshed.update_tasks('{"on_failure": "others_alert"}', '{given}', owner => 'other')}
);
$holder->query('SELECT pg_advisory_unlock(1)');
await_alerts('given', 1);
is(alerts_of('given', q{coalesce(told->>'by', 'app')}),
	'app', 'nobody calls what another role has named');
query('SELECT taskshed.remove_all_tasks($$other$$)');

# An alias that is gone is not some function of that name.
app(q{add_callback('ring', 'alert'); SET ROLE app; SELECT taskshed.add_callback('bell', 'alert', true); SELECT taskshed.add_task('fail', '2100-01-01', task_id => 'no bell', on_failure => 'bell')}
);
app(q{add_task('fail', '2100-01-01', task_id => 'ringing', on_failure => 'ring')}
);
app(q{remove_callback('bell')});
app(q{run_task('no bell')});
await_state($node, 'on_failure/no bell', 'failed');
is( query(
		q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'on_failure/no bell'}
	),
	'42883',
	'an alias that is gone is no function');
query(q{SELECT taskshed.set_owner('other', '{ringing}', owner => 'app')});
is( query(q{SELECT on_failure FROM taskshed.tasks WHERE task_id = 'ringing'}),
	'public.alert',
	'a task that is given away has the function of its alias');
query('SELECT taskshed.remove_all_tasks($$other$$)');
app(q{remove_all_tasks()});

# Somebody who is about to give the role a task of that name keeps nobody waiting, and no alert is lost
# however many there are that others hold.
app(q{add_task('fail', task_id => 'awaited', on_failure => 'alert_by_procedure')}
);
await_alerts('awaited', 1);
query(
	q{SELECT taskshed.add_task('work', '2100-01-01', task_id => 'x', owner => 'other'); UPDATE _taskshed.task SET task_id = 'on_failure/awaited' WHERE task_id = 'x'}
);
$holder->query(
	q{BEGIN; SELECT taskshed.set_owner('app', '{on_failure/awaited}', owner => 'other')}
);
app(q{retry_task('awaited')});
await_alerts('awaited', 2);
pass('a name that is not free yet is not waited for');
$holder->query('ROLLBACK');
query('SELECT taskshed.remove_all_tasks($$other$$)');

query(
	q{CREATE FUNCTION bad_alert(task_id text) RETURNS void LANGUAGE sql AS 'SELECT 1/0'; SET ROLE app; SELECT taskshed.add_task('fail', task_id => 'held all', on_failure => 'bad_alert')}
);
for my $n (1 .. 6)
{
	await(
		$node,
		"SELECT count(*) = $n AND bool_and(state = 'failed') FROM taskshed.tasks WHERE task_id ~ '^on_failure/held all'",
		"$n alerts have failed");
	last if $n == 6;
	$holder->query('ROLLBACK');
	$holder->query(
		q{BEGIN; SELECT taskshed.pause_tasks(array_agg(task_id), owner => 'app') FROM taskshed.tasks WHERE task_id ~ '^on_failure/held all'}
	);
	app(q{retry_task('held all')});
}
pass('no alert is lost, however many others hold');
$holder->query('ROLLBACK');
app(q{remove_all_tasks()});

# ------------------------------------------------------------------------
# What is in the data

app(q{add_task('fail', task_id => 'deep', validate => false, kwargs => ('{"why": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::jsonb, on_failure => 'alert')}
);
await_alerts('deep', 1);
is(alerts_of('deep', q{(told->'task_kwargs')::text}),
	'null', 'arguments that are nested too deep are not told');
app(q{remove_all_tasks(); CREATE FUNCTION fail_at_length() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'long' USING DETAIL = repeat('x', 1000000); END $$;
	SELECT taskshed.add_task('fail_at_length', task_id => 'lengthy', on_failure => 'alert')}
);
await_alerts('lengthy', 1);
is(alerts_of('lengthy', q{length(told->>'detail')::text}),
	2048, 'a long detail is cut');
app(q{remove_all_tasks(); CREATE FUNCTION alert_whole(kwargs jsonb DEFAULT '{"task_id": "nobody"}') RETURNS void LANGUAGE sql AS 'INSERT INTO public.alerts (told) VALUES (kwargs)';
	SELECT taskshed.add_task('work', now() - interval '1 day', start_within => '1 hour', task_id => 'whole', on_failure => 'alert_whole')}
);
await_alerts('whole', 1);
is( query(
		q{SELECT (told->>'run_id')::bigint = run_id FROM alerts, taskshed.runs WHERE told->>'task_id' = 'whole' AND task_id = 'whole'}
	),
	't',
	'a function that takes them all has them, though it need not; and the number of a run that was missed'
);

# It can be tried like others.
app(q{add_task('fail', task_id => 'to try', on_failure => 'alert_some')});
await_alerts('to try', 1);
query('REVOKE INSERT ON alerts FROM app');
app(q{retry_task('to try')});
await_state($node, 'on_failure/to try', 'failed');
query('GRANT INSERT ON alerts TO app');
app(q{try_task('on_failure/to try')});
await_alerts('to try', 2);
pass('it can be tried');
app(q{remove_all_tasks()});

# ------------------------------------------------------------------------
# The setting of a role

query(q{ALTER ROLE app SET taskshed.on_failure = 'public.alert'});
await($node,
	q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'taskshed worker')}
);
app(q{add_task('fail', task_id => 'by setting')});
await_alerts('by setting', 1);
app(q{add_task('fail', task_id => 'not at all', on_failure => '')});
await_state($node, 'not at all', 'failed');
app(q{add_task('wait', task_id => 'lost by setting')});
await_state($node, 'lost by setting', 'running');
$node->stop('immediate');
$node->start;
await_alerts('lost by setting', 1);
pass('the scheduler, too, goes by the setting of the task\'s owner');
await_calm($node);
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE task_id = 'on_failure/not at all'}
	),
	0,
	'an empty one is none, whatever the setting says');
query('ALTER ROLE app RESET taskshed.on_failure');

# ------------------------------------------------------------------------
# notify

my $listener = session($node);
$listener->query('LISTEN jobs');

# What was heard of a task.
sub heard
{
	my ($task_id) = @_;
	my @heard = $listener->query('SELECT 1') =~
	  /Asynchronous notification "(\w+)" with payload "(.*)" received/g;
	my @of;

	while (my ($channel, $payload) = splice @heard, 0, 2)
	{
		push @of, "$channel $payload" if $payload =~ /"task_id": "$task_id"/;
	}
	return join "\n", @of;
}

app(q{add_task('work', task_id => 'heard', notify => 'jobs')});
await_no_task($node, 'heard');
like(
	heard('heard'),
	qr/^jobs \{"task_id": "heard", "status": "succeeded", "run_at": "20[^"]*", "attempt": 1\}$/,
	'who listens hears of the end of a run');
app(q{add_task('work', task_id => 'with result', notify => 'jobs', options => '{"notify_result": true}'); CREATE FUNCTION much() RETURNS text LANGUAGE sql AS $$ SELECT repeat('x', 8000) $$;
	SELECT taskshed.add_task('much', task_id => 'too much', notify => 'jobs', options => '{"notify_result": true}')}
);
await_no_task($node, 'with result');
await_no_task($node, 'too much');
my $with_result = heard('(?:with result|too much)');
like(
	$with_result,
	qr/"task_id": "with result", [^\n]*, "result": "done"\}/,
	'the result, too, if that is wanted');
like(
	$with_result,
	qr/"task_id": "too much", "status": "succeeded", "run_at": "[^"]*", "attempt": 1\}/,
	'and there is room for it');
app(q{add_task('fail', task_id => 'heard', notify => 'jobs', max_attempts => 2, retry_delay => '0')}
);
await_state($node, 'heard', 'failed');
like(
	heard('heard'),
	qr/^jobs \{"task_id": "heard", "status": "failed", .*"attempt": 2, "sqlstate": "P0001"\}$/,
	'once, whatever it was');
query(q{ALTER ROLE app SET taskshed.notify_failures = 'failures'});
await($node,
	q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'taskshed worker')}
);
$listener->query('LISTEN failures');
app(q{add_task('fail', task_id => 'bad')});
app(q{add_task('work', task_id => 'good')});
await_state($node, 'bad', 'failed');
await_no_task($node, 'good');
like(
	heard('(?:bad|good)'),
	qr/^failures \{"task_id": "bad"[^\n]*$/,
	'a setting has all failures told');

# A commit with a notice that does not come to its end keeps those of all others waiting.
query(
	q{SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()}
);
my $hangs = session($node);
$hangs->query('SET synchronous_commit = on');
$hangs->send('BEGIN; NOTIFY others; INSERT INTO parent VALUES (1); COMMIT');
await($node,
	q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')}
);
$node->safe_psql(
	'postgres',
	q{SET synchronous_commit = local; SET ROLE app;
	SELECT taskshed.add_task('work', task_id => 'unheard ' || n, notify => 'jobs') FROM generate_series(1, 20) AS n}
);
await_no_task($node, 'unheard %');
like(
	query('SELECT message FROM taskshed.status'),
	qr/without its notice/,
	'no task waits for it, and the view status says so');
is(heard('unheard \d+'), '', 'they go without a notice');
query(
	q{SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()}
);
$hangs->result;
await($node,
	q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')}
);
app(q{add_task('work', task_id => 'heard', notify => 'jobs')});
await_no_task($node, 'heard');
like(heard('heard'), qr/^jobs/, 'and later ones have theirs again');
await($node, 'SELECT message IS NULL FROM taskshed.status');

no_crash($node, 'PANIC');
$node->stop;
done_testing();
