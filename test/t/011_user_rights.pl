
# A task runs as the role that owns it, with that role's rights and no others:
# as if the role had connected and called the function itself.  And others do
# not see its arguments.
#
# Quick: promise 8

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('user_rights');

$node->safe_psql(
	'postgres', q{
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE team NOLOGIN;
CREATE ROLE carol LOGIN IN ROLE team;
CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats;
CREATE ROLE boss SUPERUSER LOGIN;
CREATE TABLE of_alice (n integer);
ALTER TABLE of_alice OWNER TO alice;
CREATE TABLE of_boss (n integer);
CREATE FUNCTION insert_into(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO %s VALUES (1)', name);
	PERFORM note('inserted into ' || name);
END $$;
CREATE FUNCTION climbs(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE command;
	EXCEPTION WHEN insufficient_privilege OR undefined_object OR invalid_parameter_value THEN
	END;
	PERFORM public.note('after ' || command);
END $$;
CREATE TABLE defers (n integer);
GRANT ALL ON defers TO PUBLIC;
CREATE FUNCTION defers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note('deferred');
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER defers AFTER INSERT ON defers DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION defers();
CREATE FUNCTION as_definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ SELECT public.note('definer') $$;
});
my $super = $node->safe_psql('postgres', 'SELECT current_user');

sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', "SET ROLE $role; $sql");
}

sub who
{
	my ($what) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(DISTINCT who, ' ') FROM ledger WHERE what = '$what'"
	);
}

# Each as its owner, side by side, also when it is another who schedules it.
as($_,
	qq{SELECT count(taskshed.add_task('note', kwargs => '{"what": "by $_"}')) FROM generate_series(1, 100)}
) foreach ('alice', 'bob', 'boss');
$node->safe_psql(
	'postgres',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "for alice"}', owner => 'alice');
SELECT taskshed.add_task('note', kwargs => '{"what": "for myself"}')});
await_no_task($node, '%');
is(who('by alice'),   'alice/alice',   'the tasks of one role');
is(who('by bob'),     'bob/bob',       'the tasks of another');
is(who('by boss'),    'boss/boss',     'the tasks of a superuser');
is(who('for alice'),  'alice/alice',   'scheduled for another role');
is(who('for myself'), "$super/$super", 'those of who has made the server');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what LIKE 'by %'}),
	'300',
	'each once');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM (SELECT pid FROM ledger GROUP BY pid HAVING count(DISTINCT who) > 1) AS x}
	),
	'0',
	'no process has run tasks of two roles');

# With its rights, and no others.
as( 'alice', q{
SELECT taskshed.add_task('insert_into', kwargs => '{"name": "of_alice"}', task_id => 'may');
SELECT taskshed.add_task('insert_into', kwargs => '{"name": "of_boss"}', task_id => 'may not')}
);
as( 'bob', q{
SELECT taskshed.add_task('insert_into', kwargs => '{"name": "of_alice"}', task_id => 'may not')}
);
as( 'boss', q{
SELECT taskshed.add_task('insert_into', kwargs => '{"name": "of_alice"}', task_id => 'may')}
);
await(
	$node,
	q{SELECT count(*) = 2 FROM taskshed.tasks WHERE state = 'failed' AND last_sqlstate = '42501' AND task_id = 'may not'},
	'what the role may not do has failed');
await_no_task($node, 'may');
is( who('inserted into of_alice'),
	'alice/alice boss/boss',
	'what it may do has run');
is($node->safe_psql('postgres', 'SELECT count(*) FROM of_boss'),
	'0', 'nothing else has');

# There is nothing to go back to.
my @ladders = (
	'RESET ROLE',
	'SET ROLE NONE',
	'RESET SESSION AUTHORIZATION',
	'SET SESSION AUTHORIZATION DEFAULT',
	'SET ROLE boss',
	"SET ROLE \"$super\"",
	'SET SESSION AUTHORIZATION boss');
as('alice',
	qq{SELECT taskshed.add_task('climbs', kwargs => jsonb_build_object('command', '$_'))}
) foreach (@ladders);
as('alice',
	q{SELECT taskshed.add_task('climbs', kwargs => '{"command": "INSERT INTO public.defers VALUES (1)"}')}
);
as('alice', q{SELECT taskshed.add_task('as_definer')});
await_no_task($node, '00%');
is(who("after $_"), 'alice/alice', "$_ leads nowhere") foreach (@ladders);
is(who('deferred'), 'alice/alice', 'a deferred trigger runs as the owner');
is(who('definer'), "alice/$super",
	'a SECURITY DEFINER function runs as its owner, called by the task\'s');

# A role that has become less than it was.
my $holder = session($node);
as('boss',
	q{SELECT taskshed.add_task('insert_into', now() + interval '1 day', '{"name": "of_boss"}', task_id => 'later')}
);
$node->safe_psql('postgres', 'ALTER ROLE boss NOSUPERUSER');
$node->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('later', now(), 'boss')});
await(
	$node,
	q{SELECT last_sqlstate = '42501' FROM taskshed.tasks WHERE task_id = 'later'},
	'a task of a role that is no superuser any more');
is($node->safe_psql('postgres', 'SELECT count(*) FROM of_boss'),
	'0', 'has not run with its old rights');

# A role that is renamed keeps its tasks.
as('bob',
	q{SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "renamed"}', task_id => 'renamed')}
);
$node->safe_psql('postgres', 'ALTER ROLE bob RENAME TO robert');
as('robert', q{SELECT taskshed.update_execution_time('renamed', now())});
await_no_task($node, 'renamed');
is(who('renamed'), 'robert/robert', 'a role that is renamed keeps its tasks');

# Members.
$node->safe_psql('postgres', 'ALTER ROLE team LOGIN');
as('carol',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "team"}', owner => 'team')}
);
await_no_task($node, 'team');
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'team'},
	'a task of a group has run');
is(who('team'), 'team/team', 'as the group');

# What others see while it runs and when it does not.
$node->safe_psql('postgres',
	q{SET ROLE alice; SELECT taskshed.remove_all_tasks()});
$holder->query('SELECT pg_advisory_lock(1)');
as( 'alice',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "Xyzzy"}', task_id => 'running');
SELECT taskshed.add_task('climbs', kwargs => '{"command": "RAISE Xyzzy"}', task_id => 'failing');
SELECT taskshed.add_task('hold', now() + interval '1 day', '{"what": "Xyzzy"}', task_id => 'waiting')}
);
await_blocked($node, 1);
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'failing'},
	'one has failed');
my $query = q{
	SELECT task_id, owner, callback, state, kwargs IS NULL, last_error IS NULL, worker_pid IS NULL
	FROM taskshed.tasks WHERE owner = 'alice' ORDER BY 1};
is( as('alice', $query),
	join("\n",
		'failing|alice|public.climbs|failed|f|f|t',
		'running|alice|public.hold|running|f|t|f',
		'waiting|alice|public.hold|scheduled|f|t|t'),
	'the owner sees all');
is( as('watcher', $query),
	join("\n",
		'failing|alice|public.climbs|failed|t|t|t',
		'running|alice|public.hold|running|t|t|f',
		'waiting|alice|public.hold|scheduled|t|t|t'),
	'pg_read_all_stats sees all but arguments and messages');
is(as('robert', $query), '', 'others see nothing');
unlike(
	as( 'watcher',
		'SELECT * FROM taskshed.tasks; SELECT * FROM taskshed.status; SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()'
	),
	qr/Xyzzy/,
	'pg_read_all_stats does not see the arguments');
unlike(
	as( 'robert',
		'SELECT * FROM taskshed.status; SELECT * FROM pg_stat_activity'),
	qr/Xyzzy|public\.hold/,
	'others do not see what runs');

# The view status tells others whether tasks run, and counts only what they may
# see: nothing of the run in progress, what waits behind it, and what failed.
set_and_reload(
	$node,
	'taskshed.max_workers'         => 1,
	'taskshed.worker_idle_timeout' => '100ms');
await($node, q{SELECT workers = 1 FROM taskshed.status},
	'one worker is left');
as( 'alice',
	q{SELECT taskshed.add_task('note', '2001-01-01', '{"what": "late"}', task_id => 'late');
SELECT taskshed.add_task('note', '2101-01-01', '{"what": "early"}', task_id => 'early')}
);
as('carol',
	q{SELECT taskshed.add_task('note', '2102-01-01', '{"what": "early"}', task_id => 'early')}
);
await($node, q{SELECT due = 1 FROM taskshed.status}, 'one task is late');
my $status = q{
	SET timezone = 'UTC';
	SELECT state, scheduler_pid IS NOT NULL, workers, running, due, oldest_due, failed, next_wakeup,
		runs_ok, runs_failed, last_failure_at, message
	FROM taskshed.status};
as('alice',  q{SELECT taskshed.remove_task('waiting')});
as('robert', q{SELECT taskshed.remove_all_tasks()});
is( as('alice', $status),
	'active|t|1|1|1|2001-01-01 00:00:00+00|1|2101-01-01 00:00:00+00||||',
	'a role counts its own tasks');
is( as('carol', $status),
	'active|t|0|0|0||0|2102-01-01 00:00:00+00||||',
	'and not those of others');
is(as('robert', $status),
	'active|t|0|0|0||0|||||', 'one without tasks learns that they run');
like(
	as('watcher', $status),
	qr/^active\|t\|1\|1\|1\|2001-01-01 00:00:00\+00\|\d+\|[^|]*\|\d+\|\d+\|[^|]+\|/,
	'pg_read_all_stats sees it all');
is( as( 'robert',
		'SELECT workers, running, due, failed, runs_ok FROM taskshed._status()'
	),
	'0|0|0|0|',
	'the function under the view says no more');
set_and_reload($node, 'taskshed.enabled' => 'off');
is( as('alice', $status),
	'disabled|t|1|1|1|2001-01-01 00:00:00+00|1|||||',
	'while no tasks are run');
is(as('robert', $status), 'disabled|t|0|0|0||0|||||', 'the same to others');
set_and_reload(
	$node,
	'taskshed.enabled'     => undef,
	'taskshed.max_workers' => undef);

foreach my $table ('task', 'alarm', 'edge')
{
	isnt(
		$node->psql(
			'postgres', "SET ROLE alice; SELECT * FROM _taskshed.$table"),
		0,
		"the table $table is closed");
}
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'running');

$holder->quit;
$node->stop;
done_testing();
