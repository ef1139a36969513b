
# taskshed.tasks_per_commit: short runs share a transaction, and nothing else.  What one leaves behind
# does not reach the next; what goes wrong with one is not the others' business; and until the commit
# all of them are running, whoever asks.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'batches',
	init => [ allows_streaming => 1 ],
	conf => q{
taskshed.max_workers = 1
log_min_messages = debug1
});
my $apart = 'tasks that shared a transaction are run one by one';

query(
	q{
	CREATE ROLE app LOGIN;
	CREATE TABLE trace (n serial, what text, xid xid8 DEFAULT pg_current_xact_id(), seen text);
	GRANT ALL ON trace, trace_n_seq TO app;
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int REFERENCES parent DEFERRABLE);
	GRANT ALL ON parent, child TO app});

# The role asks for it itself.
$node->safe_psql('postgres',
	'SET ROLE app; ALTER ROLE app SET taskshed.tasks_per_commit = 32');

# A function that does what it is told, for one kind of trouble, since a callback that has spoilt a
# transaction runs alone for a while.
sub callback
{
	my ($name, $settings) = @_;

	query(
		qq{
		CREATE FUNCTION $name(what text, before text DEFAULT NULL, look text DEFAULT NULL)
		RETURNS text LANGUAGE plpgsql $settings AS \$\$
		DECLARE seen text;
		BEGIN
			IF before IS NOT NULL THEN EXECUTE before; END IF;
			IF look IS NOT NULL THEN EXECUTE look INTO seen; END IF;
			INSERT INTO public.trace (what, seen) VALUES (what, seen);
			RETURN what;
		END \$\$});
	return;
}

# Add tasks in one transaction, and let them be over.
sub run_tasks
{
	my (@tasks) = @_;
	my $values  = join ",\n", map {
		my %task = %$_;

		'jsonb_build_object(' . join(
			', ',
			map {
				my $value = $task{$_};

				"'$_', "
				  . (
					ref $value
					? 'jsonb_build_object('
					  . join(', ',
						map { "'$_', \$v\$$value->{$_}\$v\$" }
						sort keys %$value)
					  . ')'
					: "\$v\$$value\$v\$")
			} sort keys %task)
		  . ')'
	} @tasks;

	query('TRUNCATE trace');
	$node->safe_psql('postgres',
		"SET ROLE app; SELECT taskshed.add_tasks(to_jsonb(ARRAY[$values]))");
	await($node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('due', 'running'))}
	);
	return;
}

sub task
{
	my ($callback, $what, $before, $look, %more) = @_;

	return {
		callback => "public.$callback",
		task_id  => $what,
		kwargs   => {
			what => $what,
			defined $before ? (before => $before) : (),
			defined $look   ? (look   => $look)   : ()
		},
		%more
	};
}

# A worker that has other settings than the role has now leaves.
sub await_other_settings
{
	return await($node,
		q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'taskshed worker')}
	);
}

# Some that do nothing, so that the next ones are met by a worker that is at work.
my $filler = 0;

sub fillers
{
	my ($n) = @_;

	return map { task('plain', 'filler ' . ++$filler) } 1 .. $n;
}

# Run tasks between eleven that do nothing.  How many of these come before is another number each
# time, so that it depends on no machine's speed where a transaction ends.
sub run_among_fillers
{
	my ($round, @tasks) = @_;
	my $before = 1 + $round % 8;

	run_tasks(fillers($before), @tasks, fillers(11 - $before));
	return;
}

# Run tasks again and again until those of these names have shared a transaction.  Return whether
# they have.
sub share
{
	my ($names, @tasks) = @_;

	for my $round (1 .. 300)
	{
		query('SELECT taskshed.remove_all_tasks($$app$$)');
		run_among_fillers($round, @tasks);
		return 1
		  if query("SELECT count(*) = "
			  . @$names
			  . " AND count(DISTINCT xid) = 1 FROM trace WHERE what IN ("
			  . join(', ', map { "'$_'" } @$names)
			  . ')') eq 't';
	}
	return 0;
}

# Ten times each of these calls, with the same arguments, that does nothing.
sub learners
{
	my (@tasks) = @_;
	my $n = 0;

	return map {
		my $task   = $_;
		my %kwargs = map { $_ => 'SELECT 1' } keys %{ $task->{kwargs} };

		map {
			my $what = 'learn ' . ++$n;

			{
				callback => $task->{callback},
				task_id  => $what,
				kwargs   => { %kwargs, what => $what }
			}
		} 1 .. 10;
	} @tasks;
}

# Run tasks again and again until they have spoilt a transaction.  Return whether they have.  Their
# calls do nothing some times before, so that they are known to be short however long they took when
# they came first.
sub spoil
{
	my (@tasks) = @_;
	my $before = count_in_log($node, qr/$apart/);

	for my $round (1 .. 300)
	{
		query('SELECT taskshed.remove_all_tasks($$app$$)');
		run_tasks(learners(@tasks));
		run_among_fillers($round, @tasks);
		return 1 if count_in_log($node, qr/$apart/) > $before;
	}
	return 0;
}

sub seen_by
{
	my ($what) = @_;

	return query(
		"SELECT coalesce(seen, 'NULL') FROM trace WHERE what = '$what'");
}

callback('plain', '');
run_tasks(fillers(20));

# ------------------------------------------------------------------------
# Short ones share

ok( share(
		[ 'one', 'two', 'three' ],
		map { task('plain', $_) } qw(one two three)),
	'short runs share a transaction');
is( query(
		q{SELECT count(*) = count(DISTINCT what) AND count(*) = 14 FROM trace}
	),
	't',
	'each of them has its effect once');
is( query(
		q{SELECT string_agg(DISTINCT status || ' ' || result, ', ') FROM taskshed.runs WHERE task_id = 'two' AND finished_at =
			(SELECT max(finished_at) FROM taskshed.runs WHERE task_id = 'two')}),
	'succeeded two',
	'and its record');
run_tasks(map { task('plain', "many $_") } 1 .. 200);
is( query(
		q{SELECT max(n) BETWEEN 2 AND 32, sum(n) FROM (SELECT count(*) FROM trace GROUP BY xid) AS x (n)}
	),
	't|200',
	'no more than the setting says');
is(query('SELECT runs_ok > 0 AND runs_failed = 0 FROM taskshed.status'),
	't', 'they are counted');
is(query(q{SELECT count(*) = count(DISTINCT run_id) FROM taskshed.runs}),
	't', 'each run has a number of its own');

ok( share(
		[ 'first time', 'second time' ],
		map { task('plain', $_, undef, 'SELECT statement_timestamp()') }
		  'first time',
		'second time'),
	'two that look at the clock');
isnt(seen_by('first time'), seen_by('second time'),
	'have each a time of their own');

# What they notify, too, is of one transaction.
my $listener = session($node);
$listener->query('LISTEN heard');
ok( share(
		[ 'first told', 'second told' ],
		map {
			task('plain', $_,
				q{SELECT pg_notify('heard', pg_current_xact_id()::text)})
		} 'first told',
		'second told'),
	'two that notify');
my $told = query(q{SELECT xid FROM trace WHERE what = 'first told'});
is(scalar(() = $listener->query('SELECT 1') =~ /with payload "$told"/g),
	1, 'an equal notice is heard once');
$listener->quit;
run_tasks(map { task('plain', "many $_") } 1 .. 200);

# in the order in which they would have run
is( query(
		q{SELECT bool_and(what = 'many ' || n - first + 1)
		FROM (SELECT what, n, min(n) OVER () AS first FROM trace) AS t}),
	't',
	'they run in their order');

query('ALTER ROLE app SET taskshed.tasks_per_commit = 1');
await_other_settings();
run_tasks(map { task('plain', "alone $_") } 1 .. 100);
is(query('SELECT count(DISTINCT xid) FROM trace'),
	100, 'with 1 each has a transaction');
query('ALTER ROLE app SET taskshed.tasks_per_commit = 32');
await_other_settings();
run_tasks(fillers(20));

# ------------------------------------------------------------------------
# Who does not

callback('slow', '');
query(
	q{CREATE FUNCTION tick() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.01)'}
);
run_tasks(map { task('slow', "slow $_", 'SELECT pg_sleep(0.02)') } 1 .. 30);
is(query('SELECT count(DISTINCT xid) FROM trace'),
	30, 'runs that are not short do not');

query(
	q{CREATE PROCEDURE proceed(what text) LANGUAGE sql AS 'INSERT INTO public.trace (what) VALUES (what)'}
);
query('GRANT EXECUTE ON PROCEDURE taskshed.execute TO app');
run_tasks(
	map {
		(   task('plain',   "plain $_"),
			task('proceed', "procedure $_"),
			{
				callback => 'taskshed.execute',
				task_id  => "execute $_",
				kwargs   => {
					command =>
					  "INSERT INTO public.trace (what) VALUES ('execute $_')"
				}
			},
			task('plain', "late $_", undef, undef, start_within => '1 hour'))
	} 1 .. 40);
is( query(
		q{SELECT max(n) FROM (SELECT count(*) FROM trace WHERE what !~ '^plain' GROUP BY xid) AS x (n)}
	),
	1,
	'procedures, commands and what must begin in time do not');
is(query('SELECT count(*) FROM trace'), 160, 'but all of them run');

$node->safe_psql('postgres',
	q{ALTER ROLE app SET default_transaction_isolation = 'repeatable read'});
await_other_settings();
run_tasks(map { task('plain', "repeatable $_") } 1 .. 60);
is(query('SELECT count(DISTINCT xid) FROM trace'),
	60, 'nor do those of a role whose transactions keep one snapshot');
query('ALTER ROLE app RESET default_transaction_isolation');
await_other_settings();
run_tasks(fillers(20));

# ------------------------------------------------------------------------
# What a run leaves behind does not reach the next one of its transaction

my %left = (
	'a setting' => [
		q{SELECT set_config('work_mem', '123kB', false)},
		q{SELECT current_setting('work_mem') = '123kB'}
	],
	'a local setting' => [
		q{SELECT set_config('app.note', 'secret', true)},
		q{SELECT coalesce(current_setting('app.note', true), '') = 'secret'}
	],
	'a read-only transaction' =>
	  [ undef, q{SELECT current_setting('transaction_read_only') = 'on'} ],
	'a prepared statement' => [
		q{PREPARE left_behind AS SELECT 1},
		q{SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'left_behind')}
	],
	'a cursor with hold' => [
		q{DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1},
		q{SELECT EXISTS (SELECT FROM pg_cursors WHERE name = 'left_behind')}
	],
	'a lock of its session' => [
		q{SELECT pg_advisory_lock(4711)},
		q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711)}
	],
	'a sequence' =>
	  [ q{SELECT nextval('public.trace_n_seq')}, q{SELECT lastval()} ]);
foreach my $what (sort keys %left)
{
	my ($before, $look) = @{ $left{$what} };
	my $name = $what =~ s/\W/_/gr;

	callback($name, '');
	if ($what eq 'a sequence')
	{
		# lastval() fails, as it does in a run that is alone
		ok( spoil(
				task($name, 'leaves', $before),
				task($name, 'looks',  'SELECT 1', $look)),
			"$what: two runs in one transaction");
		is( query(
				q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'looks'}
			),
			'55000',
			'the next value of a sequence is forgotten');
		query('SELECT taskshed.remove_all_tasks($$app$$)');
		next;
	}
	run_tasks(map { task($name, "learn $_", 'SELECT 1', 'SELECT 1') }
		  1 .. 20);
	ok( share(
			[ 'leaves', 'looks' ],
			task($name, 'leaves', $before),
			task($name, 'looks',  undef, $look)),
		"$what: two runs in one transaction");
	is(seen_by('looks'), 'false', "$what is put back");
}

# What ends with the transaction only is the last of it.
my %last = (
	'temporary'   => q{CREATE TEMP TABLE left_behind (i int) ON COMMIT DROP},
	'constraints' => q{SET CONSTRAINTS ALL DEFERRED},
	'advisory'    => q{SELECT pg_advisory_xact_lock(4712)},
	'subtransactions' =>
	  q{DO $d$ BEGIN FOR i IN 1 .. 33 LOOP BEGIN INSERT INTO public.child VALUES (NULL); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $d$}
);
foreach my $what (sort keys %last)
{
	callback($what, '');
	run_tasks(map { task($what, "learn $_", 'SELECT 1') } 1 .. 20);

	my $shared  = 0;
	my $reached = 0;
	for my $round (1 .. 300)
	{
		last if $shared >= 3;

		# (Those that do nothing keep the callback short on the average.)
		run_among_fillers(
			$round,
			task($what, 'leaves', $last{$what}),
			task($what, 'next'),
			map { task($what, "short $_", 'SELECT 1') } 1 .. 8);
		$shared++
		  if query(
			q{SELECT EXISTS (SELECT FROM trace a JOIN trace b USING (xid) WHERE a.what = 'leaves' AND b.what ~ 'filler')}
		  ) eq 't';
		$reached++
		  if query(
			q{SELECT EXISTS (SELECT FROM trace a JOIN trace b USING (xid) WHERE a.what = 'leaves' AND b.n > a.n)}
		  ) eq 't';
	}
	cmp_ok($shared, '>', 0, "$what: it shares a transaction");
	is($reached, 0, "$what: and is the last of it");
}

# Deferred constraints are looked at before the next run begins.
query('INSERT INTO parent VALUES (1)');
callback('deferred', '');
ok( spoil(
		task(
			'deferred',
			'violates',
			'SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.child VALUES (2)'
		)),
	'a violation ends the batch');
is( query(
		q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'violates'}
	),
	'23503',
	'and is the run\'s own');
query(
	'SELECT taskshed.remove_all_tasks($$app$$); DELETE FROM child; DELETE FROM parent'
);

# ------------------------------------------------------------------------
# What goes wrong with one is not the others' business

my %wrong = (
	'fails'                  => [ q{SELECT 1/0}, '22012' ],
	'is cancelled by itself' => [
		q{SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)}, '57014'
	]);
foreach my $what (sort keys %wrong)
{
	my ($before, $sqlstate) = @{ $wrong{$what} };
	my $name = $what =~ s/\W/_/gr;

	callback($name, '');
	ok( spoil(task($name, 'culprit', $before)),
		"$what: it shared a transaction");
	is( query(
			q{SELECT string_agg(state || ' ' || last_sqlstate, ', ') FROM taskshed.tasks}
		),
		"failed $sqlstate",
		"$what: it has failed, and nothing else");
	is(query(q{SELECT count(*), count(DISTINCT what) FROM trace}),
		'11|11', "$what: the others have run once");
	query('SELECT taskshed.remove_all_tasks($$app$$)');
}

# One that takes long all of a sudden is done again, alone, and is not counted twice.
callback('dawdles', '');
ok( spoil(
		task(
			'dawdles',
			'dawdler',
			q{SELECT pg_sleep(CASE WHEN EXISTS (SELECT FROM public.trace WHERE xid = pg_current_xact_id_if_assigned()) THEN 10 ELSE 0 END)}
		)),
	'one that takes long spoils its transaction');
is(query(q{SELECT count(*), count(DISTINCT what) FROM trace}),
	'12|12', 'all have run once');
is( query(
		q{SELECT string_agg(status || ' ' || attempt, ', ') FROM (SELECT * FROM taskshed.runs WHERE task_id = 'dawdler' ORDER BY finished_at DESC LIMIT 1) AS r}
	),
	'succeeded 1',
	'its attempt is the first');
run_tasks(map { (fillers(1), task('dawdles', "dawdler $_", 'SELECT 1')) }
	  1 .. 10);
is( query(
		q{SELECT max(n) FROM (SELECT count(*) FROM trace WHERE xid IN (SELECT xid FROM trace WHERE what ~ 'dawdler') GROUP BY xid) AS x (n)}
	),
	1,
	'it runs alone for a while');

# One that does not let itself be cancelled spoils it, too.
callback('swallows', '');
ok( spoil(
		task(
			'swallows',
			'swallower',
			q{DO $d$ BEGIN
				PERFORM pg_sleep(CASE WHEN EXISTS (SELECT FROM public.trace WHERE xid = pg_current_xact_id_if_assigned()) THEN 10 ELSE 0 END);
			EXCEPTION WHEN query_canceled THEN NULL;
			END $d$}
		)),
	'one that catches its cancel spoils its transaction');
is(query(q{SELECT count(*), count(DISTINCT what) FROM trace}),
	'12|12', 'all have run once');

# Somebody who is changing a task keeps its run waiting, and no other.
set_and_reload($node, 'taskshed.max_workers' => '2');
my $changer = session($node);
my $logged  = count_in_log($node, qr/$apart/);
for my $round (1 .. 300)
{
	query('TRUNCATE trace');
	$node->safe_psql(
		'postgres', q{SET ROLE app;
		SELECT taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'public.plain', 'run_at', now() + interval '1 day',
			'task_id', 'changed ' || i, 'group_id', 'changed', 'kwargs', jsonb_build_object('what', 'changed ' || i)) ORDER BY i))
		FROM generate_series(1, 20) AS i;
		SELECT taskshed.update_execution_times(array_agg((task_id, now())::taskshed.task_execution_time))
		FROM taskshed.fetch_tasks(group_id => 'changed')});
	$changer->query(
		q{BEGIN; SELECT id FROM _taskshed.alarm WHERE id = (SELECT id FROM _taskshed.task WHERE task_id = 'changed 15') FOR UPDATE}
	);
	await($node,
		q{SELECT count(*) <= 1 FROM taskshed.tasks WHERE state IN ('due', 'running')}
	);
	$changer->query('ROLLBACK');
	await($node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE group_id = 'changed')}
	);
	last if count_in_log($node, qr/$apart/) > $logged;
}
cmp_ok(count_in_log($node, qr/$apart/),
	'>', $logged, 'a task that is being changed spoils its transaction');
is(query('SELECT count(*), count(DISTINCT what) FROM trace'),
	'20|20', 'all have run once, the others without waiting');
$changer->quit;
set_and_reload($node, 'taskshed.max_workers' => '1');

# ------------------------------------------------------------------------
# Runs that change each other's tasks

ok( share(
		[ 'remover', 'survivor' ],
		task('plain', 'remover', q{SELECT taskshed.remove_task('victim')}),
		task('plain', 'victim'),
		task('plain', 'survivor')),
	'a run removes the task of the next');
is(query(q{SELECT count(*) FROM trace WHERE what = 'victim'}),
	0, 'which is seen to be gone');

ok( share(
		[ 'done', 'late remover' ],
		task('plain', 'done'),
		task(
			'plain', 'late remover',
			undef,   q{SELECT taskshed.remove_task('done')})),
	'a run removes the task of one that is done');
is(seen_by('late remover'), 'false',
	'there is nothing left to be removed, as if it had been committed');

ok( share(
		[ 'pauser', 'after the pause' ],
		task('plain', 'pauser', q{SELECT taskshed.pause_task('paused')}),
		task('plain', 'paused'),
		task('plain', 'after the pause')),
	'a run pauses the task of the next');
is(query(q{SELECT count(*) FROM trace WHERE what = 'paused'}),
	0, 'which does not run');
is(query(q{SELECT state FROM taskshed.tasks WHERE task_id = 'paused'}),
	'paused', 'and is paused');
query('SELECT taskshed.remove_all_tasks($$app$$)');

# ------------------------------------------------------------------------
# Until the commit all of them are running

# The commit waits for a standby that there is not.
query(
	q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()}
);
my $done = 0;
for my $round (1 .. 100)
{
	query(q{SET synchronous_commit = local; TRUNCATE trace});
	$node->safe_psql(
		'postgres',
		q{SET synchronous_commit = local; SET ROLE app;
		SELECT taskshed.add_tasks(jsonb_agg(jsonb_build_object('callback', 'public.plain', 'task_id', 'waits ' || i,
			'kwargs', jsonb_build_object('what', 'waits ' || i,
				'before', CASE WHEN i = 30 THEN $$SELECT set_config('synchronous_commit', 'on', true)$$ END)) ORDER BY i))
		FROM generate_series(1, 34) AS i});
	await(
		$node,
		q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND wait_event = 'SyncRep')
			OR NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('due', 'running'))}
	);
	$done =
	  query(q{SELECT count(*) FROM taskshed.tasks WHERE state = 'running'});
	last if $done > 1;
	query(
		q{SELECT taskshed.cancel_task(task_id, owner => 'app') FROM taskshed.tasks WHERE state = 'running'}
	);
	await($node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('due', 'running'))}
	);
}
cmp_ok($done, '>', 1, 'runs whose commit waits are running');
is( query(
		q{SELECT count(DISTINCT worker_pid) FROM taskshed.tasks WHERE state = 'running'}
	),
	1,
	'in one worker');

# A new scheduler takes none of them for tasks that wait.
query('ALTER SYSTEM SET taskshed.max_workers = 4; SELECT pg_reload_conf()');
my $scheduler = query('SELECT scheduler_pid FROM taskshed.status');
query("SELECT pg_terminate_backend($scheduler)");
await($node,
	"SELECT scheduler_pid <> $scheduler FROM taskshed.status WHERE state = 'active'"
);
await($node,
	q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state = 'due')});
is(query(q{SELECT count(*) FROM taskshed.tasks WHERE state = 'running'}),
	$done, 'a new scheduler leaves them where they are');

# A cancel of one that is done ends the wait.
is( query(
		q{SELECT taskshed.cancel_task(min(task_id), owner => 'app') FROM taskshed.tasks WHERE state = 'running'}
	),
	't',
	'one of them can be cancelled, since its commit waits');
await_calm($node);
is(query(q{SELECT count(*), count(DISTINCT what) FROM trace}),
	'34|34', 'each has had its effect once');
is( query(
		q{SELECT count(*), count(DISTINCT task_id) FROM taskshed.runs WHERE task_id ~ '^waits' AND status = 'succeeded'
			AND started_at >= (SELECT max(started_at) - interval '1 minute' FROM taskshed.runs WHERE task_id = 'waits 34')}
	) =~ /^(\d+)\|34$/ ? 'yes' : 'no',
	'yes',
	'and is recorded');
query('ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()');

no_crash($node);
$node->stop;
done_testing();
