
# What next_runs lists is what is run: for tasks whose interval or schedule, time
# zone, until, max_runs and catch_up come by chance, the times that runs were for
# are exactly those that were listed before, until's own moment among them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $tasks = 120;

# So long (s) the last of them goes on.
my $ahead = 6;

my $node = taskshed_node('previews', conf => "taskshed.max_workers = 8\n");
my $seed = int(rand(1_000_000));
note("seed $seed");

$node->safe_psql(
	'postgres', qq{
CREATE ROLE app LOGIN;
CREATE TABLE expected (task_id text, run_at timestamptz);
CREATE TABLE choice (task_id text, catch_up text, gap interval, until timestamptz, max_runs integer);
GRANT ALL ON expected, choice TO app;
ALTER ROLE app SET timezone = 'UTC';
CREATE FUNCTION pick(VARIADIC choices text[]) RETURNS text LANGUAGE sql AS
'SELECT choices[1 + floor(random() * array_length(choices, 1))::integer]';
ALTER DATABASE postgres SET taskshed.history = 'all';
});

# Tasks are made paused, since nothing runs then while they are looked at.  Their
# grids begin now, or lie in the past; until is one of their times, or in between.
psql_as(
	$node, 'app', qq{
SELECT setseed($seed / 1000000.0);
DO \$\$
DECLARE
	id text;
	start timestamptz := date_trunc('second', clock_timestamp()) + interval '1 second';
	gap interval;
	at timestamptz;
	cron text;
	zone text;
	mode text;
	last timestamptz;
	most integer;
BEGIN
	FOR i IN 1 .. $tasks LOOP
		id := 'random ' || i;
		gap := public.pick('0.5 s', '1 s', '1.7 s', '2 s', '1 day', '1 month', '36:00')::interval;
		cron := NULL;
		IF random() < 0.4 THEN
			cron := public.pick('* * * * * *', '*/2 * * * * *', '*/3 * * * * *', '1 second', '2 seconds');
			gap := '1 s';
		END IF;
		zone := public.pick('UTC', 'Europe/Berlin', 'America/St_Johns', 'Asia/Kathmandu', 'Pacific/Apia');
		mode := public.pick('all', 'all', 'coalesce', 'skip');
		-- a grid in the past has some 100 times up to now at most
		at := CASE WHEN gap >= '1 day' THEN start - floor(random() * 100) * gap
			WHEN random() < 0.5 THEN start - gap * floor(random() * 10) ELSE start END;
		last := start + random() * interval '$ahead s';
		IF random() < 0.5 THEN
			last := coalesce((SELECT max(t) FROM taskshed.next_runs(every => CASE WHEN cron IS NULL THEN gap END,
				run_at => CASE WHEN cron IS NULL THEN at END, schedule => cron, timezone => zone,
				after => start, n => 20) AS t WHERE t <= start + interval '$ahead s'), last);
		END IF;
		most := CASE WHEN random() < 0.3 THEN 1 + floor(random() * 8)::integer END;
		PERFORM taskshed.add_task('public.note', at, '{"what": "x"}', task_id => id, paused => true,
			every => CASE WHEN cron IS NULL THEN gap END, schedule => cron, timezone => zone,
			catch_up => mode, until => last, max_runs => most);
		INSERT INTO public.choice VALUES (id, mode, gap, last, most);
	END LOOP;
	INSERT INTO public.expected
	SELECT c.task_id, t FROM public.choice c, taskshed.next_runs(task_id => c.task_id, n => 10000) AS t;
	PERFORM taskshed.resume_tasks((SELECT array_agg(task_id) FROM public.choice c));
END \$\$});
await_no_task($node, 'random %');

# Who is late by so much that coalesce or skip leaves a time out, is not asked.
my $late = q{
	SELECT c.task_id FROM public.choice c
		JOIN taskshed.runs r USING (task_id)
		JOIN public.expected e USING (task_id)
	WHERE (c.catch_up <> 'all' AND e.run_at > r.scheduled_at AND e.run_at <= r.started_at)
		OR (c.catch_up = 'skip' AND r.status = 'missed' AND r.scheduled_at = e.run_at)};
my $wrong = qq{
	SELECT coalesce(e.task_id, r.task_id), e.run_at, r.scheduled_at
	FROM public.expected e
		FULL JOIN (SELECT * FROM taskshed.runs WHERE status <> 'missed') r
			ON r.task_id = e.task_id AND r.scheduled_at = e.run_at
	WHERE (e.task_id IS NULL OR r.task_id IS NULL)
		AND coalesce(e.task_id, r.task_id) NOT IN ($late)};
is( $node->safe_psql(
		'postgres', qq{
		SELECT w.*, c FROM ($wrong) AS w (task_id, expected, run)
			JOIN public.choice c USING (task_id) ORDER BY 1, 2, 3 LIMIT 10}
	),
	'',
	'the times that are run are those that were listed');

my $compared = $node->safe_psql('postgres',
	"SELECT count(*) FROM public.choice WHERE task_id NOT IN ($late)");
note("$compared of $tasks were compared");
cmp_ok($compared, '>', $tasks / 3, 'most of them were looked at');
cmp_ok(
	$node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM public.choice c JOIN taskshed.runs r USING (task_id)
		WHERE r.scheduled_at = c.until AND r.status = 'succeeded'}),
	'>',
	10,
	'the moment of until is among them');

$node->stop;
done_testing();
