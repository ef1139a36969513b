
# Rows that a superuser has written by hand, by mistake or from a restore, with
# values that no function would have written.  Whatever they are, no process
# crashes, none goes round in circles, the tasks of others run, and the
# functions work or raise an error.
#
# Constraints and triggers of the tables are only there for what is written by
# SQL: workers write to them directly, so nothing may depend on them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'odd_rows', conf => q{
taskshed.worker_idle_timeout = '10min'
autovacuum = off
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE odd LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE plain LOGIN;
CREATE FUNCTION fails(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'on purpose';
END $$;
CREATE PROCEDURE proceeds(what text) LANGUAGE sql AS $$ SELECT public.note(what) $$;
});

# All that is done and looked at is in one session, which thereby sees our tables
# change below it; and it saves some thousands of processes.  It is lost if the
# server crashes, and then this script dies.
my $session = session($node);

$session->safe_query('SET client_min_messages = error');

sub ask { return $session->safe_query(shift) }

# Changes with each restart after a crash.
sub checkpointer
{
	return join ' ', pids_of($session, "backend_type = 'checkpointer'");
}
my $checkpointer = checkpointer();

# How often our processes have gone to sleep and been woken so far.
sub wakeups
{
	return switches_of(pids_of($session, "backend_type LIKE 'taskshed%'"));
}

# Others' tasks run, and while one waits for its time, nobody is busy.
my $nplain = 0;

sub works
{
	my ($when) = @_;
	my $what = 'plain ' . ++$nplain;
	my $before;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ask(qq{SET ROLE plain;
		SELECT taskshed.add_task('note', kwargs => '{"what": "$what"}');
		SELECT taskshed.add_task('note', now() + interval '0.5 s', '{"what": "$what"}');
		RESET ROLE}
	);
	await(
		$session,
		"SELECT count(*) >= 1 FROM ledger WHERE what = '$what'",
		"a task has run $when");
	$before = wakeups();
	await(
		$session,
		"SELECT count(*) = 2 FROM ledger WHERE what = '$what'",
		"others' tasks run $when");
	cmp_ok(wakeups() - $before, '<', 500, "and nothing is busy $when");
	is(checkpointer(), $checkpointer, "nor has it crashed $when");
	return;
}

# A task of the role odd, far ahead, then changed by hand.  (Counted from long ago, full
# hours would come up while this runs.)
my %bases = (
	once          => q{'note'},
	fails         => q{'fails', max_attempts => 3, retry_delay => '0'},
	every         => q{'note', every => '1000 hours', catch_up => 'all'},
	skips         => q{'note', every => '1000 hours', catch_up => 'skip'},
	'every fails' =>
	  q{'fails', every => '1000 hours', max_attempts => 3, retry_delay => '0'},
	proceeds => q{'proceeds'});

sub add
{
	my ($task_id, $base) = @_;
	my ($callback, $more) = split /, /, $bases{$base}, 2;

	return
	  qq{SELECT taskshed.add_task($callback, '2100-01-01', '{"what": "$task_id"}', owner => 'odd', task_id => '$task_id'}
	  . (defined $more ? ", $more" : '') . ');';
}

# All calls that take a task: they work or raise an error, in this session.
sub call_all
{
	my ($task_id, $owner) = @_;

	# (If the session were lost, this would die.)
	ask("SET ROLE '$owner'");
	$session->query(
		"SELECT * FROM taskshed.next_runs(task_id => '$task_id')");
	ask('RESET ROLE');
	foreach my $call (
		"fetch_task(%s, %o)",
		"fetch_tasks(ARRAY[%s], owner => %o)",
		"pause_task(%s, %o)",
		"resume_task(%s, %o)",
		"cancel_task(%s, %o)",
		"retry_task(%s, %o)",
		"run_tasks(ARRAY[%s], owner => %o)",
		"update_execution_time(%s, '2100-01-01', %o)",
		"add_task('note', '2100-01-01', '{\"what\": \"again\"}', task_id => %s, owner => %o, replace_existing => false)",
		"add_task('note', kwargs => '{\"what\": \"again\"}', paused => true, task_id => %s, owner => %o)",
		"next_wakeup()",
		"remove_task(%s, %o)")
	{
		(my $sql = $call) =~ s/%s/'$task_id'/;
		$sql =~ s/%o/'$owner'/;
		$session->query("SELECT taskshed.$sql");
	}
	$session->query(
		"SELECT * FROM taskshed.tasks; SELECT * FROM taskshed.status; SELECT * FROM taskshed.runs; SELECT * FROM taskshed.callbacks"
	);
	return $session->messages;
}

# Values, one after the other: task_id, what it is before, what is set in which
# table, and what becomes of it: how often it has run, its state or "gone", and
# how its last run has ended.
my ($int_max, $int_min) = (2147483647,          -2147483648);
my ($big_max, $big_min) = (9223372036854775807, '(-9223372036854775808)');
my @rows = (
	[ 'zone', 'once', 'task', "timezone = 'Mars/Olympus'", '1 gone' ],
	[
		'every zone', 'every', 'task',
		"timezone = 'Mars/Olympus'",
		'1 failed failed'
	],
	[
		'long zone', 'every', 'task',
		"timezone = repeat('x', 100000)",
		'1 failed failed'
	],
	[ 'empty zone', 'every', 'task', "timezone = ''", '1 failed failed' ],
	[ 'every zero', 'every', 'task', "every = '0'",   '1 failed failed' ],
	[
		'every minus',
		'every',
		'task',
		"every = '-1 second'",
		'1 failed failed'
	],
	[
		'every back', 'every', 'task',
		"every = '1 month -40 days'",
		'1 failed failed'
	],
	[
		'every huge', 'every', 'task',
		"every = '170000000 years'",
		'1 failed failed'
	],
	[
		'every huge days',
		'every',
		'task',
		"every = '100000000 days'",
		'1 scheduled succeeded'
	],
	[
		'every hugest', 'every', 'task',
		"every = '$int_max months $int_max days 2562047788 hours'",
		'1 failed failed'
	],
	[
		'every least', 'every', 'task',
		"every = '$int_min months $int_min days -2562047788 hours'",
		'1 failed failed'
	],
	[ 'every none', 'every', 'task', "every = NULL", '1 waiting succeeded' ],
	[
		'once every',
		'once',
		'task',
		"every = '1 year'",
		'1 scheduled succeeded'
	],
	[
		'schedule', 'once',
		'task',     "schedule = '0 0 1 1 *'",
		'1 scheduled succeeded'
	],
	[
		'bad schedule', 'once', 'task',
		"schedule = '61 * * * *'",
		'1 failed failed'
	],
	[
		'no schedule', 'every', 'task',
		"every = NULL, schedule = ''",
		'1 failed failed'
	],
	[
		'long schedule',
		'once', 'task',
		"schedule = repeat('*', 100000)",
		'1 failed failed'
	],
	[ 'never', 'once', 'task', "schedule = '0 0 30 2 *'", '1 failed failed' ],
	[
		'skipped schedule',
		'once', 'task',
		"schedule = '*/5 2 * 3 sunL', timezone = 'Europe/Berlin'",
		'1 gone'
	],
	[
		'schedule zone',
		'once', 'task',
		"schedule = '0 0 1 1 *', timezone = 'Mars/Olympus'",
		'1 failed failed'
	],
	[
		'backoff NaN',
		'fails',
		'task',
		"retry_backoff = 'NaN'",
		'0 failed failed'
	],
	[
		'backoff 0', 'fails', 'task',
		"retry_backoff = 0, retry_delay = '1ms'",
		'0 failed failed'
	],
	[
		'backoff minus',
		'fails', 'task',
		"retry_backoff = -3, retry_delay = '1ms', max_attempts = 6",
		'0 failed failed'
	],
	[
		'backoff infinite',
		'fails', 'task',
		"retry_backoff = 'Infinity', retry_delay = '1ms'",
		'0 scheduled failed'
	],
	[
		'backoff minus infinite',
		'fails', 'task',
		"retry_backoff = '-Infinity', retry_delay = '1ms'",
		'0 failed failed'
	],
	[
		'backoff huge', 'fails', 'task',
		"retry_backoff = 1e308, retry_delay = '1ms'",
		'0 scheduled failed'
	],
	[
		'delay huge',
		'fails',
		'task',
		"retry_delay = '170000000 years', retry_max_delay = '170000000 years'",
		'0 scheduled failed'
	],
	[
		'delay hugest',
		'fails',
		'task',
		"retry_delay = '$int_max months $int_max days 2562047788 hours', retry_max_delay = NULL",
		'0 scheduled failed'
	],
	[
		'delay minus', 'fails', 'task',
		"retry_delay = '-1 day', max_attempts = 0",
		'0 scheduled failed'
	],
	[
		'delay minus huge',
		'fails',
		'task',
		"retry_delay = '-170000000 years', retry_max_delay = '-170000000 years', max_attempts = 0",
		'0 scheduled failed'
	],
	[
		'delays forever',
		'fails', 'task',
		"retry_delay = '-1 day', max_attempts = 0, retry_backoff = -1",
		'0 scheduled failed'
	],
	[ 'timeout minus', 'once', 'task', "timeout = '-1 day'", '1 gone' ],
	[
		'timeout huge', 'once', 'task', "timeout = '170000000 years'",
		'1 gone'
	],
	[
		'timeout hugest',
		'once', 'task',
		"timeout = '$int_max months $int_max days 2562047788 hours'",
		'1 gone'
	],
	[ 'within minus', 'once', 'task', "start_within = '-1 day'", '1 gone' ],
	[
		'within huge', 'skips', 'task',
		"start_within = '170000000 years'",
		'1 scheduled succeeded'
	],
	[
		'within least', 'skips', 'task',
		"start_within = '-170000000 years'",
		'1 scheduled succeeded'
	],
	[
		'attempts minus',
		'fails',
		'task',
		"max_attempts = -1",
		'0 failed failed'
	],
	[
		'attempts least',
		'fails',
		'task',
		"max_attempts = $int_min",
		'0 failed failed'
	],
	[
		'runs minus', 'every', 'task',
		"max_runs = -1",
		'1 scheduled succeeded'
	],
	[
		'runs most',
		'every',
		'task',
		"max_runs = $int_max",
		'1 scheduled succeeded'
	],
	[
		'until ever',
		'every',
		'task',
		"until = 'infinity'",
		'1 scheduled succeeded'
	],
	[ 'until never', 'every', 'task', "until = '-infinity'", '0 gone' ],
	[
		'alias of nothing',
		'once',
		'task',
		'is_alias = true',
		'0 failed failed'
	],
	[ 'callback empty', 'once', 'task', "callback = ''", '0 failed failed' ],
	[
		'callback garbage',
		'once', 'task',
		q{callback = E'"; DROP TABLE x; --\n.().'},
		'0 failed failed'
	],
	[
		'callback sql', 'once', 'task',
		q{callback = 'note(''x'')'},
		'0 failed failed'
	],
	[
		'callback long',
		'once', 'task',
		"callback = repeat('a', 5000000)",
		'0 failed failed'
	],
	[
		'callback dots',
		'once', 'task',
		"callback = repeat('a.', 100000) || 'a'",
		'0 failed failed'
	],
	[
		'callback internal',
		'once', 'task',
		"callback = 'taskshed._alarm_changed', kwargs = '{}'",
		'0 failed failed'
	],
	[
		'kwargs many',
		'once',
		'task',
		"kwargs = (SELECT jsonb_object_agg('k' || n, n) FROM generate_series(1, 10000) n)",
		'0 failed failed'
	],
	[
		'kwargs deep',
		'once',
		'task',
		"kwargs = jsonb_build_object('what', (repeat('[', 1000) || repeat(']', 1000))::jsonb)",
		'0 gone'
	],
	[ 'owner name', 'once', 'task', "owner_name = ''", '1 gone' ],
	[
		'created', 'every',
		'task',    "created_at = 'infinity'",
		'1 scheduled succeeded'
	],
	[
		'group', 'every', 'task',
		"group_id = repeat(U&'\\+01F600', 255)",
		'1 scheduled succeeded'
	],

	[
		'attempt most',
		'fails',
		'alarm',
		"attempt = $int_max",
		'0 failed failed'
	],
	[
		'attempt least',
		'fails',
		'alarm',
		"attempt = $int_min",
		'0 failed failed'
	],
	[
		'attempt most procedure',
		'proceeds', 'alarm', "attempt = $int_max, interruptions = $int_max",
		'1 gone'
	],
	[
		'failures most',
		'every fails',
		'alarm',
		"failures_in_row = $int_max",
		'0 scheduled failed'
	],
	[
		'failures least',
		'every fails',
		'alarm',
		"failures_in_row = $int_min",
		'0 scheduled failed'
	],
	[
		'interruptions most',
		'proceeds', 'alarm',
		"interruptions = $int_max, begun_at = now()",
		'0 failed interrupted'
	],
	[
		'interruptions least',
		'proceeds', 'alarm',
		"interruptions = $int_min, begun_at = 'infinity'",
		'1 gone'
	],
	[
		'interruptions', 'once', 'alarm', "interruptions = $int_max",
		'1 gone'
	],
	[
		'count most',
		'every',
		'alarm',
		"run_count = $big_max",
		'1 scheduled succeeded'
	],
	[
		'count least',
		'every',
		'alarm',
		"run_count = $big_min",
		'1 scheduled succeeded'
	],
	[
		'revision most',
		'every',
		'alarm',
		"revision = $big_max",
		'1 scheduled succeeded'
	],
	[
		'revision least',
		'every',
		'alarm',
		"revision = $big_min",
		'1 scheduled succeeded'
	],
	[ 'run_at -infinity', 'once', 'alarm', "run_at = '-infinity'", '1 gone' ],
	[
		'run_at infinity',
		'once',
		'alarm',
		"run_at = 'infinity'",
		'0 scheduled -'
	],
	[
		'run_at first', 'once', 'alarm', "run_at = '4714-11-24 00:00:00 BC'",
		'1 gone'
	],
	[
		'run_at last', 'once', 'alarm',
		"run_at = '294276-12-31 23:59:59.999999'",
		'0 scheduled -'
	],
	[
		'scheduled -infinity',
		'once', 'alarm', "scheduled_at = '-infinity'",
		'1 gone'
	],
	[
		'scheduled infinity',
		'once', 'alarm', "scheduled_at = 'infinity'",
		'1 gone'
	],
	[
		'every -infinity',
		'every',
		'alarm',
		"scheduled_at = '-infinity'",
		'2 scheduled succeeded'
	],
	[
		'every infinity',
		'every', 'alarm', "scheduled_at = 'infinity'",
		'1 gone'
	],
	[
		'skip -infinity',
		'skips', 'alarm',
		"scheduled_at = '-infinity', anchor = '-infinity'",
		'0 scheduled missed'
	],
	[
		'skip infinity',
		'skips', 'alarm', "scheduled_at = 'infinity', anchor = 'infinity'",
		'1 gone'
	],
	[
		'scheduled last',
		'skips', 'alarm', "scheduled_at = '294276-12-31 23:59:59.999999'",
		'1 gone'
	],
	[
		'anchor -infinity',
		'skips', 'alarm',
		"anchor = '-infinity', scheduled_at = now()",
		'1 scheduled succeeded'
	],
	[
		'anchor infinity',
		'skips', 'alarm',
		"anchor = 'infinity', scheduled_at = now()",
		'1 scheduled succeeded'
	],
	[
		'resume infinity',
		'every',
		'alarm',
		"resume_at = 'infinity'",
		'1 scheduled succeeded'
	],
	[
		'resume -infinity',
		'once', 'alarm', "resume_at = '-infinity'",
		'2 gone'
	],
	[
		'resume one-off',
		'once', 'alarm',
		"resume_at = 'infinity', paused_at = 'infinity'",
		'1 paused succeeded'
	],
	[
		'failed infinity',
		'once', 'alarm', "failed_at = 'infinity'",
		'0 failed -'
	],
	[
		'failed -infinity',
		'once', 'alarm', "failed_at = '-infinity'",
		'0 failed -'
	],
	[
		'paused -infinity',
		'once', 'alarm', "paused_at = '-infinity'",
		'0 paused -'
	],
	[
		'previous', 'every', 'alarm',
		"previous_run_at = 'infinity', last_run_at = '-infinity'",
		'1 scheduled succeeded'
	],
	[
		'begun -infinity',
		'proceeds', 'alarm', "begun_at = '-infinity'",
		'1 gone'
	],
	[
		'status huge',
		'every',
		'alarm',
		"last_status = repeat('x', 1000000), last_error = repeat('y', 5000000), last_sqlstate = 'garbage'",
		'1 scheduled succeeded'
	],
	[
		'place of another',
		'every',
		'alarm',
		"task_tid = '(0,1)'",
		'1 scheduled succeeded'
	],
	[
		'place beyond the end',
		'every', 'alarm',
		"task_tid = '(4294967294,65535)'",
		'1 scheduled succeeded'
	],
	[
		'place that is none',
		'every',
		'alarm',
		"task_tid = '(4294967295,0)'",
		'1 scheduled succeeded'
	],
	[
		'place unknown',
		'every',
		'alarm',
		'task_tid = NULL',
		'1 scheduled succeeded'
	],
	[
		'other owner', 'once', 'alarm',
		"owner = 'other'::regrole",
		'0 failed failed'
	],
	[ 'owner 0',      'once', 'alarm', 'owner = 0',      '0 due -' ],
	[ 'task owner 0', 'once', 'task',  'owner = 0',      '0 failed failed' ],
	[ 'no owner', 'once', 'alarm', 'owner = 4294967295', '0 failed failed' ],
	[
		'task of no owner',
		'once',
		'task',
		'owner = 4294967295',
		'0 failed failed'
	],
	[
		'task of other',
		'once', 'task',
		"owner = 'other'::regrole",
		'0 failed failed'
	]);

my $became = q{
	(SELECT count(*) FROM ledger WHERE what = x.id) || ' ' ||
	coalesce((SELECT state || ' ' || coalesce(last_status, '-') FROM taskshed.tasks WHERE task_id = x.id), 'gone')};

sub what_became
{
	my ($task_id) = @_;
	return ask("SELECT $became FROM (VALUES ('$task_id')) x (id)");
}

sub try_rows
{
	my ($when, @try) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $row (@try)
	{
		my ($task_id, $base, $table, $set) = @$row;
		my $run_at = $set =~ /\brun_at =/ ? '' : 'run_at = now(),';

		# one after the other, so that it is known which one was the end of it
		ask(add($task_id, $base) . (
				$table eq 'task'
				? qq{UPDATE _taskshed.task SET $set WHERE task_id = '$task_id';
				UPDATE _taskshed.alarm SET run_at = now(), scheduled_at = now(), anchor = now()
				WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = '$task_id')}
				: qq{UPDATE _taskshed.alarm SET scheduled_at = now(), anchor = now() WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = '$task_id');
				UPDATE _taskshed.alarm SET $run_at $set
				WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = '$task_id')}
			));
	}
	works($when);
	foreach my $row (@try)
	{
		my ($task_id, undef, undef, undef, $expected) = @$row;

		await(
			$session,
			"SELECT ($became) = '$expected' FROM (VALUES ('$task_id')) x (id)",
			"$task_id has become $expected");
		is(call_all($task_id, 'odd'),
			'', "the calls for $task_id work or raise an error");
	}
	ask(    'DELETE FROM _taskshed.task WHERE owner <> '
		  . q{'plain'::regrole; DELETE FROM _taskshed.alarm WHERE owner <> 'plain'::regrole}
	);
	works("with those of $when gone");
	return;
}

try_rows('with odd values', @rows);


# Values that the constraints do not let in, while they are there.
foreach my $set (
	"kwargs = '[]'",
	"kwargs = '1'",
	"task_id = ''",
	"task_id = repeat('x', 256)",
	"group_id = ''",
	"run_type = 'never'",
	"catch_up = ''",
	"history = ''",
	"every = '1 day', schedule = '* * * * *'",
	"callback = NULL")
{
	like(
		$session->query(
			add('refused', 'once')
			  . "UPDATE _taskshed.task SET $set WHERE task_id = 'refused'"),
		qr/ERROR:  (new row for relation|null value)/,
		"$set is refused");
}
ask(q{SELECT taskshed.remove_all_tasks('odd');
	ALTER TABLE _taskshed.task DROP CONSTRAINT kwargs_object, DROP CONSTRAINT task_id_length,
		DROP CONSTRAINT group_id_length, DROP CONSTRAINT run_type_values, DROP CONSTRAINT catch_up_values,
		DROP CONSTRAINT history_values, DROP CONSTRAINT either_times});
try_rows(
	'without constraints',
	[ 'both', 'every', 'task', "schedule = '0 0 1 1 *'", '1 failed failed' ],
	[
		'kwargs array', 'once', 'task',
		q{kwargs = '[{"what": 1}, {"what": 2}, [[]], 3]'},
		'0 failed failed'
	],
	[
		'kwargs string',
		'once',
		'task',
		q{kwargs = '"what"'},
		'0 failed failed'
	],
	[ 'kwargs null', 'once', 'task', q{kwargs = 'null'}, '0 failed failed' ],
	[
		'no catch_up',
		'every',
		'task',
		"catch_up = ''",
		'1 scheduled succeeded'
	],
	[
		'wide catch_up',
		'every', 'task',
		"catch_up = repeat('s', 100000)",
		'1 scheduled succeeded'
	],
	[ 'no history',    'once',  'task', "history = ''",  '1 gone' ],
	[ 'other history', 'fails', 'task', "history = 'x'", '0 failed failed' ],
	[
		'run type',
		'every',
		'task',
		"run_type = 'never'",
		'1 scheduled succeeded'
	],
	[ 'no group', 'once', 'task', "group_id = ''", '1 gone' ]);

# Names that are a nuisance.
ask(q{SELECT taskshed.add_task('fails', kwargs => '{"what": "names"}', owner => 'odd', task_id => n)
	FROM unnest(ARRAY[E'two\nlines', 'a "quoted" ''one''', repeat(U&'\+01F600', 255), E'\\x %s $1 ;--']) n}
);
await(
	$session,
	q{SELECT count(*) = 4 FROM taskshed.tasks WHERE owner = 'odd' AND state = 'failed'},
	'tasks with odd names have run');
is( ask(q{SELECT count(taskshed.remove_task(task_id, 'odd')) FROM taskshed.tasks WHERE owner = 'odd'}
	),
	'4',
	'and can be removed');

# Rows that do not fit together.
my $clear = q{DELETE FROM _taskshed.task WHERE owner <> 'plain'::regrole;
	DELETE FROM _taskshed.alarm WHERE owner <> 'plain'::regrole;};
ask(add('alone', 'once') . q{
	DELETE FROM _taskshed.alarm WHERE owner = 'odd'::regrole});
works('with a task without an alarm');
is(call_all('alone', 'odd'), '', 'a task without an alarm');
ask($clear . add('alone', 'once') . q{
	DELETE FROM _taskshed.task WHERE owner = 'odd'::regrole;
	UPDATE _taskshed.alarm SET run_at = now() WHERE owner = 'odd'::regrole});
works('with an alarm without a task');
is(call_all('alone', 'odd'), '', 'an alarm without a task');
ask($clear . add('twice', 'every') . q{
	INSERT INTO _taskshed.alarm SELECT a.* FROM _taskshed.alarm a, generate_series(1, 3) WHERE owner = 'odd'::regrole;
	INSERT INTO _taskshed.alarm SELECT a.id, run_at, scheduled_at, anchor, revision, run_count, 'other'::regrole, 0, 0, 0
	FROM _taskshed.alarm a WHERE owner = 'odd'::regrole;
	UPDATE _taskshed.alarm SET run_at = now() - random() * interval '1 s', revision = random() * 100
	WHERE owner <> 'plain'::regrole});
works('with several alarms of a task');
is(call_all('twice', 'odd'), '', 'several alarms of a task');
ask($clear . add('one', 'once') . q{
	SELECT taskshed.add_task('note', '2100-01-01', '{"what": "the other"}', owner => 'other', task_id => 'the other');
	UPDATE _taskshed.alarm a SET id = b.id, run_at = now() FROM _taskshed.alarm b
	WHERE a.owner IN ('odd'::regrole, 'other'::regrole) AND b.owner IN ('odd'::regrole, 'other'::regrole)
		AND a.owner <> b.owner});
await(
	$session,
	q{SELECT count(*) = 2 FROM taskshed.tasks WHERE task_id IN ('one', 'the other') AND state = 'failed'
		AND last_error = 'the rows of the task have different owners'},
	'two tasks that have swapped ids have failed');
is(ask(q{SELECT count(*) FROM ledger WHERE what IN ('one', 'the other')}),
	'0', 'and have not run as each other');
works('with swapped ids');
is(call_all('one', 'odd') . call_all('the other', 'other'),
	'', 'tasks with swapped ids');
ask($clear);

# An id of 0 stands for no task in memory.
my %odd_ids = (
	'id 0'     => '0',
	'id least' => '(-9223372036854775808)',
	'id most'  => '9223372036854775807');
foreach my $task_id (sort keys %odd_ids)
{
	ask(add($task_id, 'every') . qq{
		BEGIN;
		UPDATE _taskshed.alarm a SET id = $odd_ids{$task_id}, run_at = '-infinity'
		FROM _taskshed.task t WHERE t.id = a.id AND task_id = '$task_id';
		UPDATE _taskshed.task SET id = $odd_ids{$task_id} WHERE task_id = '$task_id';
		COMMIT}
	);
}
works('with odd ids');
is(what_became($_), '0 due -', "$_ does not run")
  foreach ('id 0', 'id least');
is(what_became('id most'), '1 scheduled succeeded', 'id most does');
is(call_all($_, 'odd'), '', "the calls for $_") foreach (sort keys %odd_ids);

# Aliases
ask($clear . q{
	INSERT INTO _taskshed.callback VALUES ('odd'::regrole, '', 'a', ''),
		('odd'::regrole, '', 'b', repeat('x', 1000000)),
		('odd'::regrole, '', 'c', '"'), ('odd'::regrole, '', 'd', 'd'), (0, '', 'e', 'note');
	SELECT taskshed.add_task(n, kwargs => '{"what": "x"}', task_id => n, owner => 'odd', validate => false)
	FROM unnest('{a,b,c,d,e}'::text[]) n});
await(
	$session,
	q{SELECT count(*) = 5 FROM taskshed.tasks WHERE state = 'failed' AND task_id IN ('a', 'b', 'c', 'd', 'e')},
	'odd aliases fail');
works('with odd aliases');
is(call_all($_, 'odd'), '', "alias $_") foreach ('a' .. 'e');
ask('TRUNCATE _taskshed.callback');

# Rows that come in other ways.
my $file = $node->basedir . '/alarm';
ask(add('copied', 'once') . q{
	CREATE TABLE saved AS SELECT a.* FROM _taskshed.alarm a JOIN _taskshed.task USING (id) WHERE task_id = 'copied';
	UPDATE saved SET run_at = now();
	DELETE FROM _taskshed.alarm a USING saved WHERE a.id = saved.id});
ask("COPY saved TO '$file'; COPY _taskshed.alarm FROM '$file'");
await_no_task($session, 'copied');
ask(add('replicated', 'once') . q{
	SET session_replication_role = replica;
	UPDATE _taskshed.alarm a SET run_at = now() FROM _taskshed.task t WHERE t.id = a.id AND task_id = 'replicated';
	RESET session_replication_role}
);
await_no_task($session, 'replicated');
ask(add('unnoticed', 'once'));
works('before that');
ask(q{ALTER TABLE _taskshed.alarm DISABLE TRIGGER alarm_changed});
ask(q{UPDATE _taskshed.alarm a SET run_at = now() FROM _taskshed.task t WHERE t.id = a.id AND task_id = 'unnoticed'}
);
works('while nobody was told of a row');
is(what_became('unnoticed'), '0 due -', 'it waits to be found');
ask(q{ALTER TABLE _taskshed.alarm ENABLE ALWAYS TRIGGER alarm_changed});
await_no_task($session, 'unnoticed');

# Rows that go away or change while the task runs.
my $holder = session($node);
foreach my $sql (
	'DELETE FROM _taskshed.task; DELETE FROM _taskshed.alarm',
	'DELETE FROM _taskshed.task',
	'DELETE FROM _taskshed.alarm',
	'TRUNCATE _taskshed.task, _taskshed.alarm',
	'TRUNCATE _taskshed.task',
	'TRUNCATE _taskshed.alarm',
	'UPDATE _taskshed.task SET id = id + 1000000',
	'UPDATE _taskshed.alarm SET id = id + 1000000',
	q{UPDATE _taskshed.task SET owner = 'other'::regrole},
	q{UPDATE _taskshed.alarm SET owner = 'other'::regrole},
	'UPDATE _taskshed.alarm SET revision = -revision, run_at = now()')
{
	$holder->query('SELECT pg_advisory_lock(1)');
	ask(q{SELECT taskshed.add_task('hold', kwargs => '{"what": "held"}', owner => 'odd', every => '1 day')}
	);
	await_blocked($session, 1);
	ask($sql);
	$holder->query('SELECT pg_advisory_unlock(1)');
	await(
		$session,
		'SELECT running = 0 FROM taskshed.status',
		"a run is over after $sql");
	works("after $sql");
	ask('TRUNCATE _taskshed.task, _taskshed.alarm');
}
$holder->quit;

# Two columns of the history that have changed places: nothing is recorded in
# the wrong one.
my $part = ask(
	q{SELECT '_taskshed.run_' || part FROM _taskshed.history ORDER BY began_at DESC LIMIT 1}
);
my $swap = "ALTER TABLE $part RENAME message TO other;
	ALTER TABLE $part RENAME detail TO message;
	ALTER TABLE $part RENAME other TO detail";
my $recorded = ask("SELECT count(*) FROM $part");
ask($swap);
works('with two columns of the history swapped');
is(ask("SELECT count(*) FROM $part"), $recorded, 'and is not recorded there');
ask($swap);
works('with the columns in their places');
cmp_ok(ask("SELECT count(*) FROM $part"), '>', $recorded, 'and is recorded');

# The history: whatever has become of it, tasks run.
foreach my $sql (
	'TRUNCATE _taskshed.history',
	q{INSERT INTO _taskshed.history VALUES ('infinity', 3), ('-infinity', 4), ('294276-12-31', 5)},
	'ALTER TABLE _taskshed.history DROP CONSTRAINT history_parts, DROP CONSTRAINT history_pkey',
	'INSERT INTO _taskshed.history VALUES (now(), 8), (now(), -1), (now(), 2147483647), (now(), 2), (now(), 2)',
	'TRUNCATE _taskshed.run_0, _taskshed.run_1',
	q{INSERT INTO _taskshed.run_0 SELECT -1, now(), now(), now(), 0, -1, 0, repeat('x', 100000), 'x', NULL, 'x'},
	'ALTER TABLE _taskshed.run_0 DROP COLUMN hint CASCADE',
	'ALTER TABLE _taskshed.run_1 ADD COLUMN more text',
	'ALTER TABLE _taskshed.run_2 ALTER task_id TYPE integer USING 0',
	'ALTER TABLE _taskshed.run_3 RENAME TO run_9',
	'ALTER TABLE _taskshed.history ALTER part TYPE text',
	'ALTER TABLE _taskshed.history RENAME TO h')
{
	my $scheduler = ask('SELECT scheduler_pid FROM taskshed.status');

	ask("DO \$\$ BEGIN ALTER EXTENSION taskshed DROP VIEW taskshed.runs; DROP VIEW taskshed.runs; EXCEPTION WHEN OTHERS THEN END \$\$"
	) if $sql =~ /run_\d (DROP|ALTER)/;
	ask($sql);
	ask("SELECT pg_terminate_backend($scheduler)");
	await(
		$session,
		"SELECT scheduler_pid <> $scheduler AND state = 'active' FROM taskshed.status",
		"a scheduler has seen $sql");
	works("after $sql");
}
ask('DROP EXTENSION taskshed CASCADE');

# Tables and indexes that are not as we have made them: an error, and no process
# that takes one thing for another.  The scheduler leaves.
my $drop_views =
  q{DO $$ DECLARE o record; BEGIN FOR o IN SELECT c.oid::regclass AS view FROM pg_class c
		WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind = 'v' LOOP
		EXECUTE format('ALTER EXTENSION taskshed DROP VIEW %s', o.view); END LOOP; END $$;
	ALTER EXTENSION taskshed DROP FUNCTION taskshed.fetch_task;
	ALTER EXTENSION taskshed DROP FUNCTION taskshed.fetch_tasks;
	ALTER EXTENSION taskshed DROP FUNCTION taskshed._details;
	DROP VIEW _taskshed.task_details, taskshed.tasks, taskshed.overview CASCADE;};
foreach my $sql (
	'ALTER TABLE _taskshed.task ADD COLUMN more text',
	'ALTER TABLE _taskshed.alarm ADD COLUMN more text',
	'ALTER TABLE _taskshed.task DROP COLUMN group_id CASCADE',
	'ALTER TABLE _taskshed.task RENAME retry_delay TO x; ALTER TABLE _taskshed.task RENAME retry_max_delay TO retry_delay; ALTER TABLE _taskshed.task RENAME x TO retry_max_delay',
	'ALTER TABLE _taskshed.alarm DROP COLUMN last_error CASCADE',
	'ALTER TABLE _taskshed.task ALTER schedule TYPE bigint USING length(schedule)',
	'ALTER TABLE _taskshed.alarm ALTER interruptions TYPE bigint',
	'ALTER TABLE _taskshed.alarm ALTER last_error TYPE integer USING 1',
	'ALTER TABLE _taskshed.alarm ALTER run_at DROP NOT NULL; UPDATE _taskshed.alarm SET run_at = NULL',
	'ALTER TABLE _taskshed.task ALTER kwargs DROP NOT NULL; UPDATE _taskshed.task SET kwargs = NULL',
	'DROP INDEX _taskshed.alarm_queue',
	'DROP INDEX _taskshed.alarm_task',
	'DROP INDEX _taskshed.alarm_failed',
	'DROP INDEX _taskshed.task_group',
	'ALTER TABLE _taskshed.task DROP CONSTRAINT task_pkey',
	'ALTER TABLE _taskshed.task DROP CONSTRAINT task_key',
	'DROP INDEX _taskshed.alarm_queue; CREATE INDEX alarm_queue ON _taskshed.alarm (last_error, run_at, id)',
	'DROP INDEX _taskshed.alarm_task; CREATE INDEX alarm_task ON _taskshed.alarm USING hash (id)',
	'ALTER TABLE _taskshed.alarm RENAME TO alarms; CREATE VIEW _taskshed.alarm AS SELECT * FROM _taskshed.alarms',
	'ALTER TABLE _taskshed.task RENAME TO t; CREATE TABLE _taskshed.task (LIKE _taskshed.t) PARTITION BY RANGE (id)',
	'ALTER TABLE _taskshed.alarm RENAME TO alarms',
	'ALTER SEQUENCE _taskshed.task_seq RENAME TO s; CREATE TABLE _taskshed.task_seq ()'
  )
{
	ask(q{CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO PUBLIC;
		SELECT taskshed.add_task('note', kwargs => '{"what": "warm"}', owner => 'odd')}
	);
	await_no_task($session, '%');
	ask(add('altered', 'every')
		  . q{SELECT taskshed.add_task('note', now() + interval '0.2 s', '{"what": "altered"}', owner => 'odd')}
	);
	ask("$drop_views $sql");
	foreach my $call (
		q{add_task('note', kwargs => '{"what": "x"}', owner => 'odd')},
		q{pause_task('altered', 'odd')},
		q{remove_all_tasks('odd')},
		q{next_wakeup()})
	{
		my $refused =
		  qr/ERROR:  tables of extension "taskshed" are not as it has made them/;
		my ($rc, $out, $err) =
		  $node->psql('postgres', "SELECT taskshed.$call");

		like($err, $refused, "an error of $call after $sql");
		like($session->query("SELECT taskshed.$call"),
			$refused, "also in a session that knows them as they were");
	}
	await(
		$session,
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'taskshed scheduler' AND datname = 'postgres'},
		'the scheduler leaves');
	is(checkpointer(), $checkpointer, 'nothing has crashed');
	ask('DROP EXTENSION taskshed CASCADE; DROP SCHEMA IF EXISTS taskshed CASCADE'
	);
}
ask('CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO PUBLIC');
works('at last');

$session->quit;
$node->stop;
done_testing();
