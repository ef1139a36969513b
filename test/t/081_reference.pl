
# docs/reference.md is what there is.  It is compared with the catalog, both ways: functions with
# their parameters, types and results, views and types with their columns, settings; with the
# sources: SQLSTATEs, statuses and states.  And what it says of defaults, NULL, limits, errors and the
# ends of runs is tried.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedMarkdown qw(read_page);
use TaskshedReference;
use TaskshedTest;
use Test::More;

my $root          = "$FindBin::RealBin/../..";
my $page          = read_page("$root/docs/reference.md");
my $sections      = reference_read($page);
my $node          = taskshed_node('reference');
my ($script_name) = glob "$root/sql/taskshed--?.?.sql";
my $script        = read_page($script_name);
my $sources       = join "\n",
  map { read_page($_) =~ s{/\*.*?\*/}{}gsr } glob "$root/src/*/*.c";

query(
	q{
CREATE ROLE app LOGIN;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

-- How a call ends
CREATE FUNCTION tried(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION short(type oid) RETURNS text LANGUAGE sql AS $$
	SELECT replace(format_type(type, NULL), 'timestamp with time zone', 'timestamptz') $$}
);

# Rows of a query, each a reference to its fields.
sub rows
{
	my ($sql) = @_;

	return map { [ split /\|/, $_, -1 ] } split /\n/, query($sql);
}

# How calls of functions end, for the role app: 'ok' or SQLSTATEs.
sub tried
{
	my ($calls, $before) = @_;
	my @answers = split /\n/, query(
			'SET ROLE app; SET client_min_messages = error; '
		  . ($before // '')
		  . join(
			' ',
			map {
					'SELECT public.tried($call$'
				  . (/^CALL / ? '' : 'SELECT ')
				  . $_
				  . '$call$);'
			} @$calls));

	die "there are answers missing" if @answers != @$calls;
	return @answers;
}

# The functions, as the catalog has them
my %functions;
foreach my $row (
	rows(
		q{SELECT proname, n, name, short(type), n <= pronargs - pronargdefaults, mode,
			CASE prokind WHEN 'p' THEN 'procedure' ELSE replace(pg_get_function_result(p.oid), 'timestamp with time zone', 'timestamptz') END
		FROM pg_proc p LEFT JOIN LATERAL unnest(proargnames, coalesce(proallargtypes, proargtypes::oid[]), proargmodes::text[])
			WITH ORDINALITY AS a (name, type, mode, n) ON true
		WHERE pronamespace = 'taskshed'::regnamespace AND proname !~ '^_' ORDER BY proname, n}
	))
{
	my ($name, $n, $param, $type, $required, $mode, $returns) = @$row;
	my $function = $functions{$name} ||=
	  { returns => $returns, params => [], columns => [] };

	if ($mode eq 'o')
	{
		push @{ $function->{columns} }, "$param $type";
	}
	elsif ($n ne '')
	{
		push @{ $function->{params} },
		  { name => $param, type => $type, required => $required eq 't' };
	}
}

# A value of each parameter that must be given, with which the call does no harm
my %valid = (
	'callback'                             => 'public.nothing',
	'changes'                              => '{}',
	'command'                              => 'SELECT 1',
	'name'                                 => 'alias',
	'new_owner'                            => 'app',
	'run_at'                               => '2100-01-01',
	'schedule'                             => '0 4 * * *',
	'task_id'                              => 'task',
	'tasks jsonb'                          => '[]',
	'tasks taskshed.task_execution_time[]' => '{}',);

# A value of each type
my %sample = (
	'boolean'          => 'true',
	'double precision' => '1',
	'integer'          => '1',
	'interval'         => '1 hour',
	'jsonb'            => '{}',
	'name'             => 'app',
	'text'             => 'x',
	'text[]'           => '{x}',
	'timestamptz'      => '2100-01-01',);

# A call: what must be given, and other values, which are SQL or undefined to leave one out.
sub call
{
	my ($name, %others) = @_;
	my %values;

	foreach my $param (@{ $functions{$name}{params} })
	{
		my $value = $valid{"$param->{name} $param->{type}"}
		  // $valid{ $param->{name} };

		$values{ $param->{name} } = "'$value'::$param->{type}"
		  if $param->{required}
		  || (claim($name, $param->{name}) // {})->{required};
	}
	%values = (%values, %others);
	return "count(*) FROM taskshed.$name("
	  . join(', ',
		map  { "$_ => $values{$_}" }
		grep { defined $values{$_} } sort keys %values)
	  . ')';
}

# What the page says of a parameter
sub claim
{
	my ($function, $param) = @_;
	my ($claim) =
	  grep { $_->{name} eq $param } @{ $sections->{$function}{params} };

	return $claim;
}

# What an element of the catalog is called in messages is the name of a fact: each by itself.
my $said = reference_facts($sections);
my %there;

foreach my $name (sort keys %functions)
{
	my $function = $functions{$name};

	# Where it matters what comes after it, SQL has a default and the function insists.
	my @insists =
	  grep { !$_->{required} && (claim($name, $_->{name}) // {})->{required} }
	  @{ $function->{params} };

	foreach my $param (@insists)
	{
		is((tried([ call($name, $param->{name} => undef) ]))[0],
			'22023', "$name: $param->{name} must be given");
		$param->{required} = 1;
	}
	$there{"function $name"} =
	  reference_fact(@$function{qw(params returns columns)});
}
foreach my $row (
	rows(
		q{SELECT CASE relkind WHEN 'v' THEN 'view ' ELSE 'type ' END || relname, string_agg(attname || ' ' || short(atttypid), E'; ' ORDER BY attnum)
		FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
		WHERE relnamespace = 'taskshed'::regnamespace AND relkind IN ('v', 'c') AND coalesce(obj_description(c.oid), '') !~ '^Internal' AND attnum > 0 AND NOT attisdropped GROUP BY c.oid}
	))
{
	$there{ $row->[0] } = $row->[1] =~ s/; /\n/gr;
}

# What launcher or scheduler, which serve all roles, look at cannot be set for a role; all else is read
# by a worker or by the session that schedules.
my %variable_of =
  read_page("$root/src/shared/settings.c") =~
  /DefineCustom\w+\("(taskshed\.\w+)",.*?&(\w+),/sg;
my $of_schedulers = join "\n",
  map { read_page($_) =~ s{/\*.*?\*/}{}gsr }
  glob "$root/src/launcher/*.c $root/src/scheduler/*.c";
foreach my $row (
	rows(
		q{SELECT name, coalesce(nullif(current_setting(name), ''), 'empty'), coalesce(unit, '-'), CASE vartype WHEN 'bool' THEN 'on, off' WHEN 'string' THEN 'text'
			WHEN 'enum' THEN array_to_string(enumvals, ', ') ELSE min_val || ' ... ' || max_val END,
			CASE context WHEN 'sighup' THEN 'server' WHEN 'superuser' THEN 'databases' ELSE context END
		FROM pg_settings WHERE name ~ '^taskshed\.'}
	))
{
	my ($name, $default, $unit, $range, $for) = @$row;

	$range =~ s/\.\.\./…/;
	$unit  =~ s/^-$/–/;
	$for .= ' and roles'
	  if $for eq 'databases'
	  && $of_schedulers !~ /\b\Q$variable_of{$name}\E\b/;
	$there{"setting $name"} = "$default, unit $unit, $range, for $for";
}
my %names = (%$said, %there);
foreach my $name (sort keys %names)
{
	is($said->{$name} // 'not on the page',
		$there{$name} // 'not there', $name);
}

# Defaults and NULL
foreach my $name (sort keys %functions)
{
	foreach my $param (grep { $_->{required} } @{ $functions{$name}{params} })
	{
		next if $name eq 'execute';
		my $claim = claim($name, $param->{name}) // next;

		is( (tried([ call($name, $param->{name} => 'NULL') ]))[0],
			$claim->{text} =~ /NULL: 22023/ ? '22023' : 'ok',
			"$name: NULL for $param->{name}");
	}

	# (All are tried where any is said to be for later.)
	next
	  unless grep { $_->{text} =~ /^later/ }
	  @{ $sections->{$name}{params} || [] };
	my @params  = grep { !$_->{required} } @{ $functions{$name}{params} };
	my @answers = tried(
		[
			map {
				call($name, $_->{name} => "'$sample{$_->{type}}'::$_->{type}")
			} @params
		]);

	foreach my $param (@params)
	{
		my $answer = shift @answers;
		my $claim  = claim($name, $param->{name}) // next;

		is( $answer eq '0A000'             ? 'later: 0A000' : '',
			$claim->{text} =~ /^(later.*)/ ? $1             : '',
			"$name: whether $param->{name} is for later");
	}
}

# What the page says of limits, in so many words, is as it says: the last value that is allowed, and the
# first that is not.
sub limits_of
{
	my ($type, $text) = @_;
	my $step = {
		'interval'         => '1 microsecond',
		'double precision' => '0.001',
		'integer'          => '1'
	}->{$type};
	my @limits;

	$text =~ tr/,//d;
	push @limits, [ "repeat('x', $1)", "repeat('x', $1 + 1)", '22001' ]
	  if $text =~ /\b(\d+) characters/;
	push @limits, [ "repeat('x', $1)", "repeat('x', $1 - 1)", '22023' ]
	  if $text =~ /\b(\d+) to \d+ characters/;
	if ($step)
	{
		my $value = "'%s'::$type";

		push @limits,
		  [
			sprintf($value, $1),
			sprintf("$value - $value", $1, $step), '22023'
		  ]
		  if $text =~ /\b(\d+) at least/ || $text =~ /\bfrom (\d+) to \d+\b/;
		push @limits,
		  [
			sprintf($value, $1),
			sprintf("$value + $value", $1, $step), '22023'
		  ]
		  if $text =~ /\bfrom \d+ to (\d+)\b/;
		push @limits, [ sprintf($value, $step), sprintf($value, $1), '22023' ]
		  if $text =~ /\bMore than (\d+)/;
		push @limits,
		  [
			sprintf($value, $1),
			sprintf("$value + $value", $1, '1 second'), '22023'
		  ]
		  if $text =~ /\b(\d+ years) at most/;
		push @limits,
		  [ sprintf($value, 0), sprintf("-$value", $step), '22023' ]
		  if $text =~ /; 0 is /;
	}
	return @limits;
}

my (@limits, @limit_calls);
foreach my $name (sort keys %functions)
{
	my %more = $name eq 'next_runs' ? (schedule => q{'0 4 * * *'}) : ();

	foreach my $param (@{ $functions{$name}{params} })
	{
		my $claim = claim($name, $param->{name}) // next;
		my $text  = $claim->{text};

		# (All durations have the limit that stands below the table.)
		$text .= ", $1"
		  if $name eq 'add_task'
		  && $param->{type} eq 'interval'
		  && $text !~ /^later|years at most/
		  && $sections->{$name}{text} =~
		  /^All durations may be ([\d,]+ years at most)/m;

		foreach my $limit (limits_of($param->{type}, $text))
		{
			my ($inside, $outside, $code) = @$limit;

			push @limits,
			  [
				"$name: $param->{name} can be $inside, and not $outside",
				$code
			  ];
			push @limit_calls,
			  map { call($name, %more, $param->{name} => $_) } $inside,
			  $outside;
		}
	}
}
my @answers = tried(\@limit_calls);
foreach my $limit (@limits)
{
	my ($what, $code) = @$limit;

	is(join(' ', splice @answers, 0, 2), "ok $code", $what);
}
cmp_ok(scalar @limits, '>=', 20, 'limits were found');

# Words that a parameter can have
foreach my $param (qw(run_type catch_up history))
{
	my $text  = claim('add_task', $param)->{text} =~ s/\..*//r;
	my @words = $text                             =~ /`(\w+)`/g;
	my @every =
	  $param eq 'run_type' ? (undef, q{'1 day'}) : (q{'1 day'}) x @words;

	is( join(
			' ',
			tried(
				[
					map {
						call(
							'add_task',
							$param => "'$_'",
							every  => shift @every)
					} @words,
					'other'
				])),
		join(' ', ('ok') x @words, '22023'),
		"add_task: $param is any of @words");
}

# Defaults: each in the words of the page, with calls and a query that is true if it is so.  (The query
# looks at the only tasks that there are.)
my $bare  = q{add_task('nothing')};
my $later = q{add_task('nothing', '2100-01-02', task_id => 'a'};
my $daily =
  "$later, every => '1 day', paused => true, timezone => 'Asia/Kolkata')";
my $other  = q{add_task('nothing', every => '1 day', task_id => 'a')};
my @trials = (
	[
		'add_task run_at', 'now',
		[$bare],           'run_at BETWEEN now() AND clock_timestamp()'
	],
	[
		'add_task run_at',
		'with `schedule` its next time',
		[q{add_task('nothing', schedule => '0 4 * * *')}],
		'run_at = (SELECT taskshed.next_runs(schedule, timezone, n => 1))'
	],
	[
		'add_task run_at',
		'of a task that is replaced and recurs as before, the time it has',
		[ $daily, $other ],
		q{run_at = '2100-01-02'}
	],
	[ 'add_task kwargs', '`{}`', [$bare], q{kwargs = '{}'} ],
	[
		'add_task run_type',
		'by `every` and `schedule`',
		[ $bare, $other, q{add_task('nothing', schedule => '0 4 * * *')} ],
		q{string_agg(run_type, ' ' ORDER BY every, schedule) = 'recurring recurring once'}
	],
	[
		'add_task run_type',
		'with `after`, `recurring` if all of those do',
		[
			$daily,
			"$later)" =~ s/'a'/'b'/r,
			q{add_task('nothing', after => '{a}', task_id => 'c')},
			q{add_task('nothing', after => '{a,b}', task_id => 'd')}
		],
		q{string_agg(run_type, ' ' ORDER BY task_id) = 'recurring once recurring once'}
	],
	[ 'add_task every', 'not recurring', [$bare], q{run_type = 'once'} ],
	[
		'add_task task_id',
		'a new one, 32 hex digits',
		[ $bare, $bare ],
		q{count(DISTINCT task_id) FILTER (WHERE task_id ~ '^[0-9a-f]{32}$') = 2}
	],
	[ 'add_task group_id', 'no group', [$bare], 'group_id IS NULL' ],
	[ 'add_task paused',   'false',    [$bare], 'paused_at IS NULL' ],
	[
		'add_task paused',
		'of a task that is replaced, as it is',
		[ $daily, $other ],
		'paused_at IS NOT NULL'
	],
	[ 'add_task catch_up', '`coalesce`', [$bare], q{catch_up = 'coalesce'} ],
	[
		'add_task replace_existing',
		'true',
		[ "$later)", "$later, group_id => 'new')" ],
		q{group_id = 'new'}
	],
	[ 'add_task schedule', 'not recurring', [$bare], q{run_type = 'once'} ],
	[
		'add_task timezone',
		'that of the session',
		[$bare],
		q{timezone = 'Asia/Tokyo'}
	],
	[
		'add_task timezone',
		'of a task that is replaced, the one it has',
		[ $daily, $other ],
		q{timezone = 'Asia/Kolkata'}
	],
	[ 'add_task until',    'no end',   [$bare], 'until IS NULL' ],
	[ 'add_task max_runs', 'no limit', [$bare], 'max_runs IS NULL' ],
	[
		'add_task timeout',
		'setting `taskshed.timeout`',
		[$bare],
		'timeout IS NULL'
	],
	[
		'add_task history',
		'setting `taskshed.history`',
		[$bare],
		'history IS NULL'
	],
	[ 'add_task owner',       'the current user', [$bare], q{owner = 'app'} ],
	[ 'add_task description', 'none', [$bare], 'description IS NULL' ],
	[ 'add_task after',       'none', [$bare], 'after IS NULL' ],
	[ 'add_task after_group', 'none', [$bare], 'after IS NULL' ],
	[
		'add_task before',
		'none',
		[
			"$later)",
			q{add_task('nothing', after => '{a}', task_id => 'b')},
			q{add_task('nothing', '2100-01-02', task_id => 'c')}
		],
		q{bool_and(after = '{a}') FILTER (WHERE task_id = 'b')}
	],
	[
		'add_task after_status',
		'`succeeded`',
		[
			"$later)", q{add_task('nothing', after => '{a}', task_id => 'b')},
		],
		q{bool_and(after_status IS NULL)}
	],
	[
		'add_task on_failure',
		'setting `taskshed.on_failure`',
		[$bare],
		'on_failure IS NULL'
	],
	[ 'add_task notify',   'none', [$bare], 'notify IS NULL' ],
	[ 'add_task settings', 'none', [$bare], 'settings IS NULL' ],
	[
		'add_tasks replace_existing',
		'true',
		[
			"$later)",
			q{add_tasks('[{"callback": "nothing", "run_at": "2100-01-01", "task_id": "a", "group_id": "new"}]')}
		],
		q{group_id = 'new'}
	],
	[
		'next_runs timezone',
		'that of the session',
		[],
		q{(SELECT taskshed.next_runs('0 4 * * *', n => 1)) = (SELECT taskshed.next_runs('0 4 * * *', 'Asia/Tokyo', n => 1))}
	],
	[
		'next_runs after',
		'now',
		[],
		q{(SELECT taskshed.next_runs('* * * * *', n => 1)) BETWEEN now() AND now() + interval '1 minute'}
	],
	[
		'next_runs after',
		'for a task, any time',
		[q{add_task('nothing', '2000-01-01', task_id => 'a')}],
		q{(SELECT taskshed.next_runs(task_id => 'a')) = '2000-01-01'}
	],
	[
		'next_runs n', '5', [],
		q{(SELECT count(*) FROM taskshed.next_runs('0 4 * * *')) = 5}
	],
	[
		'next_runs run_at',
		'`after`',
		[],
		q{(SELECT taskshed.next_runs(every => '1 day', after => '2100-01-01', n => 1)) = (SELECT taskshed.next_runs(every => '1 day', after => '2100-01-01', run_at => '2100-01-01', n => 1))}
	],
	[
		'describe timezone',
		'that of the session',
		[],
		q{taskshed.describe('0 4 * * *') = taskshed.describe('0 4 * * *', 'Asia/Tokyo')}
	],);

# Those of which no such query tells; where it is said, another test does.
my %of_retries = $sources =~ /^#define\s+DEFAULT_(RETRY_\w+)\s+(.*)$/mg;
is_deeply(
	\%of_retries,
	{
		RETRY_DELAY     => '(10 * USECS_PER_SEC)',
		RETRY_BACKOFF   => '2.0',
		RETRY_MAX_DELAY => 'USECS_PER_HOUR'
	},
	'the defaults of retries');
my ($no_such, $twice, $empty, @none) = tried(
	[
		q{taskshed.add_task('no_such')},
		q{taskshed.add_callback('a', 'nothing'), taskshed.add_callback('a', 'nothing')},
		q{taskshed.add_task('nothing', options => '{}')},
		q{taskshed.next_runs()},
		q{taskshed.next_runs('0 4 * * *', every => '1 day')},
	]);
is("@none", '22023 22023', 'next_runs takes one of three');
my %defaults = (
	'add_task retry_delay'     => '10 seconds',
	'add_task retry_backoff'   => '2',
	'add_task retry_max_delay' =>
	  '1 hour, or `retry_delay` if that is longer',
	'add_task validate'             => $no_such eq '42883' ? 'true' : 'false',
	'add_task options'              => $empty eq 'ok'      ? '`{}`' : $empty,
	'add_task max_attempts'         => '1',    # is tried below
	'add_callback replace_existing' => $twice eq '42710' ? 'false' : 'true',
	'next_runs schedule'            => 'none',
	'next_runs every'               => 'none',
	'next_runs task_id'             => 'none',
	'add_task start_within'         =>
	  q{any time; 1 second with `catch_up => 'skip'`},
	'import_pg_cron deactivate' => 'false',);
like(
	read_page("$root/test/t/009_catch_up.pl"),
	qr/WHERE what = 'skip' AND started > planned \+ interval '1 s'/,
	'start_within of skip is tried by 009_catch_up.pl');
like(read_page("$root/test/t/065_pg_cron.pl"),
	qr/import_pg_cron\(\)/, 'import_pg_cron is tried by 065_pg_cron.pl');
query(
	q{
CREATE FUNCTION holds(calls text[], condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	call text;
	answer boolean;
BEGIN
	PERFORM taskshed.remove_all_tasks();
	FOREACH call IN ARRAY calls LOOP
		EXECUTE 'SELECT taskshed.' || call;
	END LOOP;
	EXECUTE 'SELECT ' || condition || CASE WHEN calls <> '{}' THEN ' FROM taskshed.tasks' ELSE '' END INTO answer;
	RAISE SQLSTATE 'TRIED';
EXCEPTION WHEN SQLSTATE 'TRIED' THEN
	RETURN answer;
END $$});
my @hold = split /\n/, query(
	q{SET ROLE app; SET timezone = 'Asia/Tokyo';} . join '',
	map {
		my $calls = join ', ', map { "\$call\$$_\$call\$" } @{ $_->[2] };
		"SELECT public.holds(ARRAY[$calls]::text[], \$sql\$$_->[3]\$sql\$);"
	} @trials);
my %tried_defaults;
foreach my $trial (@trials)
{
	my ($param, $words) = @$trial;

	is(shift @hold, 'true', "$param: by default $words");
	push @{ $tried_defaults{$param} }, $words;
}
$defaults{$_} = join '; ', @{ $tried_defaults{$_} }
  foreach keys %tried_defaults;
foreach my $name (sort keys %functions)
{
	foreach
	  my $param (grep { !$_->{required} } @{ $functions{$name}{params} })
	{
		my $claim = claim($name, $param->{name}) // next;

		is( $claim->{default},
			$defaults{"$name $param->{name}"} // (
				  $claim->{text} =~ /^later/   ? 'none'
				: $param->{name} eq 'owner'    ? 'the current user'
				: $name eq 'fetch_tasks'       ? 'all tasks of the owner'
				: $param->{name} eq 'task_ids' ? 'those of `group_id`'
				: $param->{name} eq 'group_id' ? 'those of `task_ids`'
				:                                'which nothing tries')
			  . (
				$name eq 'set_owner' && $param->{name} ne 'owner'
				? '; all, if `owner` is given alone'
				: ''),
			"$name: the default of $param->{name}");
	}
}

# Errors that many have in common
sub refers_to
{
	my ($name, $what) = @_;
	my $errors = $sections->{$name}{errors} // '';

	return 1 if index($errors, $what) >= 0;
	foreach my $other ($errors =~ /\bas \[(\w+)\]/g)
	{
		return 1 if refers_to($other, $what);
	}
	return 0;
}

foreach my $name (grep { $_ ne 'execute' } sort keys %functions)
{
	my %has = map { $_->{name} => 1 } @{ $functions{$name}{params} };
	my %one =
		$has{task_ids}       ? (task_ids => q{'{task}'})
	  : $name eq 'next_runs' ? (task_id => q{'task'})
	  :                        ();

	is( (   tried(
				[ call($name, %one) ],
				'SET default_transaction_read_only = on; '))[0] eq '25006'
		? 'changes'
		: 'looks',
		refers_to($name, '#errors-of-every-change') ? 'changes' : 'looks',
		"$name: whether it changes anything");
	if ($has{owner})
	{
		is( join(
				' ',
				tried(
					[
						map { call($name, %one, owner => "'$_'") } 'nobody',
						'postgres'
					])),
			refers_to($name, '`owner`')
			  || refers_to($name, '#which-tasks')
			? '42704 42501'
			: 'not said',
			"$name: errors of owner");
	}
	if ($has{task_ids})
	{
		my $without = $has{owner}
		  && claim($name, 'task_ids')->{default} eq 'all tasks of the owner';

		is( join(
				' ',
				tried(
					[
						call($name),
						call($name, %one),
						call($name, %one, group_id => q{'g'})
					])),
			($without ? 'ok' : '22023') . ' ok 22023',
			"$name: which tasks");
	}
}

# The errors that a function's section names are raised, and others that are tried here are named
query(
	q{
CREATE DOMAIN positive AS integer CHECK (value > 0);
CREATE FUNCTION takes(at timestamptz DEFAULT NULL, n integer DEFAULT NULL, p positive DEFAULT NULL) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION twice(n integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION twice(n text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION forbidden() RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION forbidden() FROM PUBLIC;
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE ROLE other LOGIN;
GRANT other TO app;
SET ROLE app;
SELECT taskshed.add_callback('forgotten', 'nothing');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once'), taskshed.add_task('nothing', every => '1 day', task_id => 'daily', paused => true),
	taskshed.add_task('commits', '2100-01-01', task_id => 'commits'), taskshed.add_task('forgotten', '2100-01-01', task_id => 'forgotten'),
	taskshed.add_task('taskshed.execute', '2100-01-01', '{"command": "COMMIT"}', task_id => 'command'),
	taskshed.add_task('nothing', after => '{commits}', task_id => 'joined');
SELECT taskshed.remove_callback('forgotten');
SET ROLE other;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once')}
);
my $limit_is_1 =
  'RESET ROLE; SET taskshed.max_tasks_per_role = 1; SET ROLE app; ';
my $execute = q{taskshed.add_task('taskshed.execute', kwargs => };
my @cases   = (
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', every => '1 day', schedule => '0 4 * * *')}
	],
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', after => '{once}', every => '1 day')}
	],
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', after => '{once}', run_type => 'recurring')}
	],
	[
		'add_task', '22023',
		q{taskshed.add_task('nothing', after_status => 'ended')}
	],
	[
		'add_task', '22023',
		q{taskshed.add_task('nothing', after => '{once,once}')}
	],
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', task_id => 'once', after => '{once}')}
	],
	[
		'add_task', '42704',
		q{taskshed.add_task('nothing', after => '{none}')}
	],
	[
		'add_task', '42704',
		q{taskshed.add_task('nothing', before => '{none}')}
	],
	[
		'add_task', '22004',
		q{taskshed.add_task('nothing', after => '{once,NULL}')}
	],
	[
		'add_task', '22004',
		q{taskshed.add_task('nothing', before => '{NULL}')}
	],
	[
		'add_task', '55000',
		q{taskshed.add_task('nothing', before => '{once}')}
	],
	[
		'add_task',
		'54000',
		q{taskshed.add_tasks((SELECT jsonb_agg(jsonb_build_object('callback', 'nothing', 'group_id', 'many'))
			FROM generate_series(1, 100001)) || '{"callback": "nothing", "after_group": "many"}'::jsonb)}
	],
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', '2100-01-02', until => '2100-01-01')}
	],
	[
		'add_task', '22001',
		q{taskshed.add_task('nothing', group_id => repeat('x', 256))}
	],
	[
		'add_task', '22015',
		q{taskshed.add_task('nothing', timeout => '2147483647 days')}
	],
	[ 'add_task', '42883', q{taskshed.add_task('no_such')} ],
	[
		'add_task', '42883',
		q{taskshed.add_task('nothing', kwargs => '{"n": 1}')}
	],
	[
		'add_task', '42725',
		q{taskshed.add_task('twice', kwargs => '{"n": 1}')}
	],
	[ 'add_task', '42809', q{taskshed.add_task('count')} ],
	[
		'add_task', '3F000',
		q{taskshed.add_task('nowhere', validate => false)},
		q{SET search_path = ''; }
	],
	[ 'add_task', '42501', q{taskshed.add_task('forbidden')} ],
	[
		'add_task',                                    '53400',
		q{taskshed.add_task('nothing', '2100-01-01')}, $limit_is_1
	],
	[ 'add_task', '0A000', q{taskshed.add_task('nothing', priority => 1)} ],
	[
		'add_task', '22P02',
		q{taskshed.add_task('takes', kwargs => '{"n": "one"}')}
	],
	[
		'add_task', '22003',
		q{taskshed.add_task('takes', kwargs => '{"n": 99999999999}')}
	],
	[
		'add_task', '22007',
		q{taskshed.add_task('takes', kwargs => '{"at": "soon"}')}
	],
	[
		'add_task', '22008',
		q{taskshed.add_task('takes', kwargs => '{"at": "2100-13-45"}')}
	],
	[
		'add_task', '23514',
		q{taskshed.add_task('takes', kwargs => '{"p": 0}')}
	],
	[
		'add_tasks',
		'22023',
		q{taskshed.add_tasks('[{"callback": "nothing", "interval": "1 day"}]')}
	],
	[
		'add_tasks',
		'22023',
		q{taskshed.add_tasks('[{"callback": "nothing", "task_id": "a"}, {"callback": "nothing", "task_id": "a"}]')}
	],
	[
		'add_tasks',
		'22P02',
		q{taskshed.add_tasks('[{"callback": "nothing", "max_runs": "one"}]')}
	],
	[
		'add_tasks',
		'22007',
		q{taskshed.add_tasks('[{"callback": "nothing", "timeout": "long"}]')}
	],
	[
		'add_tasks',
		'22008',
		q{taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-13-45"}]')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"callback": "nothing"}', '{once}')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"run_at": null}', '{once}')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"every": null}', '{daily}')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"every": "1 day"}', '{joined}')}
	],
	[
		'update_tasks', '42883',
		q{taskshed.update_tasks('{"kwargs": {}}', '{forgotten}')}
	],
	[
		'update_execution_time', '22023',
		q{taskshed.update_execution_time('once', 'infinity')}
	],
	[
		'update_execution_times',
		'22023',
		q{taskshed.update_execution_times(array[('once', now()), ('once', now())]::taskshed.task_execution_time[])}
	],
	[
		'add_task', '42704',
		q{taskshed.add_task('nothing', settings => '{"no_such": 1}')}
	],
	[
		'add_task',
		'55P02',
		q{taskshed.add_task('nothing', settings => '{"shared_buffers": 1}')}
	],
	[ 'fetch_tasks', '22023', q{taskshed.fetch_tasks('{once}', 'g')} ],
	[ 'try_task',    '42501', q{taskshed.try_task('none')} ],
	[ 'try_task',    '42883', q{taskshed.try_task('forgotten')} ],
	[ 'try_task',    '0A000', q{taskshed.try_task('command')} ],
	[ 'try_task',    '2D000', q{taskshed.try_task('commits')} ],
	[
		'next_runs', '22023',
		q{taskshed.next_runs('0 4 * * *', task_id => 'once')}
	],
	[ 'next_runs', '42501', q{taskshed.next_runs(task_id => 'none')} ],
	[
		'next_runs', '0A000',
		q{taskshed.next_runs('0 4 * * *', spread => '1 hour')}
	],
	[ 'describe', '22023', q{taskshed.describe('0 4 * * someday')} ],
	[ 'describe', '22023', q{taskshed.describe('0 4 * * *', 'Nowhere')} ],
	[
		'add_callback',
		'42710',
		q{taskshed.add_callback('a', 'nothing'), taskshed.add_callback('a', 'nothing')}
	],
	[ 'add_callback', '42883', q{taskshed.add_callback('a', 'no_such')} ],
	[ 'add_callback', '42809', q{taskshed.add_callback('a', 'count')} ],
	[
		'add_callback', '22001',
		q{taskshed.add_callback(repeat('x', 256), 'nothing')}
	],
	[ 'add_callback', '22023', q{taskshed.add_callback('', 'nothing')} ],
	[ 'execute',      '22004', $execute . q{'{"command": null}')} ],
	[ 'execute',      '42601', $execute . q{'{"command": "VACUM"}')} ],
	[ 'execute',      '25001', $execute . q{'{"command": "BEGIN"}')} ],
	[
		'execute', '0A000',
		$execute . q{'{"command": "COPY pg_class TO STDOUT"}')}
	],
	[ 'execute',   '55000', q{CALL taskshed.execute('SELECT 1')} ],
	[ 'set_owner', '22023', q{taskshed.set_owner('other')} ],
	[ 'set_owner', '42710', q{taskshed.set_owner('other', '{once}')} ],
	[ 'set_owner', '42501', q{taskshed.set_owner('postgres', '{once}')} ],
	[ 'set_owner', '55000', q{taskshed.set_owner('other', '{joined}')} ],
	[
		'set_owner',                               '53400',
		q{taskshed.set_owner('other', '{daily}')}, $limit_is_1
	],
	[ 'activate',       '42501', q{taskshed.activate()} ],
	[ 'import_pg_cron', '55000', q{taskshed.import_pg_cron()} ],);

# What takes more, and the test that does it
my %elsewhere = (
	'add_task 55000' =>
	  [ 'sql/permissions.sql', qr/which is not permitted to log in/ ],
	'set_owner 55000' =>
	  [ 'sql/set_owner.sql', qr/set_owner\('regress_nologin'/ ],
	'cancel_task 0A000'    => [ 't/049_cancelled.pl', qr/0A000/ ],
	'cancel_tasks 0A000'   => [ 't/049_cancelled.pl', qr/0A000/ ],
	'import_pg_cron 42501' =>
	  [ 't/065_pg_cron.pl', qr/42501.*cron\.timezone/ ],);
my %without_preload =
  map { ("$_ 55000" => 1) } qw(fetch_task next_wakeup next_runs try_task);
my %tried;
foreach my $case (@cases)
{
	my ($name, $code, $call, $before) = @$case;

	is((tried([$call], $before))[0], $code, "$name raises $code: $call");
	$tried{"$name $code"} = 1;
}
foreach my $name (sort keys %functions)
{
	my %codes = map { ("$name $_" => 1) }
	  ($sections->{$name}{errors} // '') =~ /\b([0-9A-Z]{4}[0-9])\b/g;

	is( join(', ', sort keys %codes),
		join(', ',
			sort grep { /^$name / }
			  keys %{ { %tried, %elsewhere, %without_preload } }),
		"$name: the errors that it has") if $sections->{$name};
}
foreach my $error (sort keys %elsewhere)
{
	my ($file, $pattern) = @{ $elsewhere{$error} };

	like(read_page("$root/test/$file"), $pattern, "$error is tried by $file");
}

# The SQLSTATEs that the sources raise or record, by the server's list of them
my (%code_of, %name_of);
foreach my $line (split /\n/,
	read_page($node->config_data('--sharedir') . '/errcodes.txt'))
{
	my ($code, undef, $macro, $name) =
	  $line =~ /^(\w{5})\s+([EWS])\s+(ERRCODE_\w+)(?:\s+(\w+))?/
	  or next;

	$code_of{$macro} = $code;
	if (defined $name)
	{
		$code_of{$name} = $code;
		$name_of{$code} = $name;
	}
}
my %raised;
my %of_level = (ERROR => 'XX000', WARNING => '01000', NOTICE => '00000');
$raised{ $code_of{$_} } = $_
  foreach $sources =~ /(?:errcode\(|sqlerrcode\s*=\s*)(ERRCODE_\w+)/g;
$raised{$_} = $_ foreach $sources =~ /outcome_set_status\([^;]*?"(\w{5})"/g;
$raised{ $of_level{$_} } = $_
  foreach $sources =~ /\belog\((ERROR|WARNING|NOTICE)\b/g;
while ($sources =~ /\bereport\((ERROR|WARNING|NOTICE),(.*?);/sg)
{
	$raised{ $of_level{$1} } = $1 if $2 !~ /errcode\(/;
}
my %caught = map { $_ => 1 } $script =~ /WHEN SQLSTATE '(\w+)'/g;
foreach my $condition ($script =~ /\bRAISE ([a-z_]+)\b/g)
{
	$raised{ $code_of{$condition} // "$condition?" } = $condition;
}
$raised{$_} = $_
  foreach grep { !$caught{$_} }
  $script =~ /(?:RAISE SQLSTATE|ERRCODE =) '(\w+)'/g;
unlike(
	$script,
	qr/\bRAISE EXCEPTION\b/,
	'each error of the script has an SQLSTATE');

my %described =
  map { $_->[0] => $_->[1] } @{ $sections->{SQLSTATEs}{tables}{SQLSTATE} };
foreach my $code (sort keys %{ { %raised, %described } })
{
	is( $described{$code} // 'not on the page',
		$raised{$code} ? $name_of{$code} : 'not raised',
		"SQLSTATE $code");
}

# Statuses and states
sub words_of
{
	my ($heading, $head) = @_;

	return join ' | ',
	  map { $_->[0] =~ tr/`//dr } @{ $sections->{$heading}{tables}{$head} };
}

# ... of runs that end in each way
query(
	q{
CREATE FUNCTION sleeps() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(600)';
CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE division_by_zero USING MESSAGE = repeat('x', 10000);
END $$;
SET ROLE app;
SELECT taskshed.remove_all_tasks(),
	taskshed.add_task('nothing', task_id => 'succeeded'),
	taskshed.add_task('fails', task_id => 'failed'),
	taskshed.add_task('sleeps', timeout => '100 ms', task_id => 'timeout'),
	taskshed.add_task('sleeps', task_id => 'cancelled'),
	taskshed.add_task('sleeps', task_id => 'interrupted'),
	taskshed.add_task('nothing', now() - interval '1 hour', start_within => '0', task_id => 'missed'),
	taskshed.add_task('nothing', after => '{succeeded}', after_status => 'failed', task_id => 'skipped')}
);
await_state($node, $_, 'running') foreach 'cancelled', 'interrupted';
query(
	q{SELECT taskshed.cancel_task('cancelled', owner => 'app'), pg_terminate_backend(worker_pid)
	FROM taskshed.tasks WHERE task_id = 'interrupted'}
);
my %error_of = ('that of the error' => '22012');
foreach my $row (@{ $sections->{'Statuses of a run'}{tables}{status} })
{
	my ($status, $code) = map { tr/`//dr } @$row;

	await(
		$node,
		"SELECT count(*) > 0 FROM taskshed.runs WHERE task_id = '$status'",
		"a run that ends as $status");
	is( query(
			"SELECT status, coalesce(sqlstate, 'none'), attempt FROM taskshed.runs WHERE task_id = '$status' AND attempt = 1"
		),
		"$status|" . ($error_of{$code} // $code) . '|1',
		"$status: the SQLSTATE");
}
is( query(
		q{SELECT state, attempt FROM taskshed.tasks WHERE task_id = 'failed'}
	),
	'failed|' . claim('add_task', 'max_attempts')->{default},
	'the default of max_attempts');

# Lengths of what views show
sub column_text
{
	my ($view, $column) = @_;
	my ($row) = grep { $_->[0] eq "`$column`" }
	  @{ $sections->{"View $view"}{tables}{column} };

	return $row->[2] =~ tr/,//dr;
}

is( query(
		q{SELECT octet_length(last_error) || ' bytes' FROM taskshed.tasks WHERE task_id = 'failed'}
	),
	(column_text('tasks', 'last_error') =~ /(\d+ bytes) at most/)[0],
	'view tasks: the length of last_error');
query(
	q{CREATE ROLE somebody_with_a_long_name LOGIN;
	SELECT taskshed.add_task('nothing', '2100-01-01', task_id => repeat('x', 255), owner => 'somebody_with_a_long_name')}
);
foreach my $row (
	rows(
		q{SELECT key, max(length(value)) || ' columns' FROM taskshed.overview AS o, jsonb_each_text(to_jsonb(o))
		WHERE key IN ('owner', 'task_id', 'last_error') GROUP BY key}
	))
{
	my ($column, $width) = @$row;

	is((column_text('overview', $column) =~ /(\d+ columns)/)[0],
		$width, "view overview: the length of $column");
}

my ($statuses) = $sources =~ /run_status_words\[\] = \{(.*?)NULL/s;
is( words_of('Statuses of a run', 'status'),
	join(' | ', $statuses =~ /\{"(\w+)"/g),
	'statuses of a run');
my @states = $script =~ /(CASE WHEN x\.id IS NOT NULL .*?) END AS state/sg;
cmp_ok(scalar @states, '>', 0, 'a view has states');
foreach my $cases (@states)
{
	is( words_of('States of a task', 'state'),
		join(' | ', $cases =~ /(?:THEN|ELSE) '(\w+)'/g),
		'states of a task');
}
my ($served) =
  $sources =~ /(CStringGetTextDatum\(state == TS_DB_IDLE \? .*?\);)/s;
is( join(' | ', sort split / \| /, words_of('States of a database', 'state')),
	join(' | ',
		sort +($served . join ' ', $sources =~ /\bstate = "[\w ]+"/g) =~
		  /"([\w ]+)"/g),
	'states of a database');

# The page has a list of what is on it, and names nothing else
my ($contents) = $page =~ /^(- .*?)^## /ms;
my %listed = map { $_ => 1 } $contents =~ /\]\(#([\w-]+)\)/g;
foreach my $heading ($page =~ /^#{2,3} (.*)$/mg)
{
	my $anchor = lc($heading =~ s/[^\w -]//gr) =~ tr/ /-/r;

	ok(delete $listed{$anchor}, "$heading is in the list");
}
is(join(' ', sort keys %listed), '', 'nothing else is');
my %mentioned = map { $_ => 1 } $page =~ /\btaskshed\.(\w+)/g;
foreach my $name (sort keys %mentioned)
{
	ok( grep({ /^(?:function|view|type|setting) (?:taskshed\.)?$name$/ }
			keys %there),
		"there is taskshed.$name");
}

# Without the library: what needs it says so.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
foreach my $name (grep { !/^(?:execute|\w+_pg_cron)$/ } sort keys %functions)
{
	my %one  = $name eq 'next_runs' ? (task_id => q{'once'}) : ();
	my $said = refers_to($name, '#errors-of-every-change')
	  || refers_to($name, '55000');

	is((tried([ call($name, %one) ]))[0] eq '55000' ? 1 : 0,
		$said, "$name: whether it can be without preload");
}

$node->stop;
done_testing();
