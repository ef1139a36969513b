
# settings: what a task has set for its runs holds from their beginning to their end, over what the
# callback commits, and is not there for the next one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('task_settings',
	conf => "taskshed.max_workers = 1\nwork_mem = '5MB'\n");

query(
	q{
	CREATE ROLE app LOGIN;
	ALTER ROLE app SET lock_timeout = '7s';
	GRANT CREATE ON SCHEMA public TO app;
	CREATE TABLE seen (n serial, what text, work_mem text DEFAULT current_setting('work_mem'), lock_timeout text DEFAULT current_setting('lock_timeout'),
		note text DEFAULT current_setting('app.note', true), isolation text DEFAULT current_setting('transaction_isolation'), pid int DEFAULT pg_backend_pid());
	GRANT ALL ON seen, seen_n_seq TO app;
	SET ROLE app;
	CREATE FUNCTION look(what text, fails boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.seen (what) VALUES (what);
		IF fails THEN RAISE EXCEPTION 'it fails'; END IF; END $$;
	CREATE PROCEDURE look_twice(what text) LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.seen (what) VALUES (what);
		COMMIT;
		INSERT INTO public.seen (what) VALUES (what); END $$;
	RESET ROLE;
	GRANT EXECUTE ON PROCEDURE taskshed.execute TO app});

# Add a task, let it end, and return what it saw.
sub seen_by
{
	my ($what, $call) = @_;

	app($call);
	await_calm($node);
	return query(
		"SELECT work_mem, lock_timeout, coalesce(note, ''), isolation FROM seen WHERE what = '$what' ORDER BY n"
	);
}

is( seen_by('plain', q{add_task('look', kwargs => '{"what": "plain"}')}),
	'5MB|7s||read committed',
	'without any it is as the role has it');
is( seen_by(
		'set',
		q{add_task('look', kwargs => '{"what": "set"}', settings =>
			'{"work_mem": "11MB", "lock_timeout": 3000, "app.note": "secret", "default_transaction_isolation": "serializable"}')}
	),
	'11MB|3s|secret|serializable',
	'they are set for the run');
is( seen_by('after', q{add_task('look', kwargs => '{"what": "after"}')}),
	'5MB|7s||read committed',
	'and not for the next one');
is( seen_by(
		'one',
		q{add_task('look', kwargs => '{"what": "one"}', settings => '{"work_mem": "12MB"}')}
	),
	'12MB|7s||read committed',
	'what is not among them is as the role has it');
is( seen_by(
		'procedure',
		q{add_task('look_twice', kwargs => '{"what": "procedure"}', settings => '{"work_mem": "13MB", "lock_timeout": "4s"}')}
	),
	"13MB|4s||read committed\n13MB|4s||read committed",
	'a COMMIT does not end them');
is( seen_by(
		'command',
		q{add_task('taskshed.execute', settings => '{"work_mem": "14MB"}', kwargs => jsonb_build_object('command',
			$$INSERT INTO public.seen (what) VALUES ('command'); COMMIT; INSERT INTO public.seen (what) VALUES ('command')$$))}
	),
	"14MB|7s||read committed\n14MB|7s||read committed",
	'nor do several commands');
is( seen_by(
		'failing',
		q{add_task('look', task_id => 'failing', kwargs => '{"what": "failing", "fails": true}', settings => '{"work_mem": "15MB"}')}
	),
	'',
	'a run that fails');
is( seen_by(
		'after it', q{add_task('look', kwargs => '{"what": "after it"}')}),
	'5MB|7s||read committed',
	'leaves none behind');
is(query('SELECT count(DISTINCT pid) FROM seen'),
	1, 'all were run by one worker');
is( query(q{SELECT settings FROM taskshed.tasks WHERE task_id = 'failing'}),
	'{"work_mem": "15MB"}',
	'the view shows them');
is( query(
		q{CREATE ROLE watcher; GRANT pg_read_all_stats TO watcher; SET ROLE watcher; SELECT count(*), count(settings) FROM taskshed.tasks}
	),
	'1|0',
	'but not to those who only watch');

# With the rights of the owner, when the task is scheduled and when it runs
is( query(
		q{SELECT taskshed.add_task('public.look', kwargs => '{"what": "right"}', owner => 'postgres', settings => '{"log_min_duration_statement": "1h"}') IS NOT NULL}
	),
	't',
	'a superuser may set more');
query('GRANT SET ON PARAMETER log_min_duration_statement TO app');
app(q{add_task('look', '2100-01-01', task_id => 'granted', kwargs => '{"what": "granted"}', settings => '{"log_min_duration_statement": "1h"}')}
);
query('REVOKE SET ON PARAMETER log_min_duration_statement FROM app');
app(q{run_task('granted')});
await($node,
	q{SELECT last_sqlstate = '42501' FROM taskshed.tasks WHERE task_id = 'granted'}
);
is(query(q{SELECT count(*) FROM seen WHERE what = 'granted'}),
	0, 'a right that was taken back is missing');

no_crash($node);
$node->stop;
done_testing();
