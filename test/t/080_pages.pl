# The chapters in docs/ are true: every block of each is run, in order, as a reader would who has done
# what README.md says up to its first task, and nothing else; how is told in TaskshedPages.pm.
#
# Left out is clients.md, whose programs are run by 026_clients.pl.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use TaskshedMarkdown qw(read_page blocks);
use TaskshedPages    qw(run_page);
use Test::More;

# The pages have a superuser of this name.
$ENV{PGUSER} = 'postgres';

# Who runs servers reads these.
my %as_superuser = map { ("docs/$_.md" => 1) } qw(operations troubleshooting);

my ($node, $pages);
foreach my $file (glob 'docs/*.md')
{
	next
	  if $file eq 'docs/clients.md'
	  || !grep { $_->{language} eq 'sql' } blocks(read_page($file));

	# A page may change settings, so each has a server of its own.
	$node->stop if $node;
	$node = PostgreSQL::Test::Cluster->new($file =~ s{.*/|\..*}{}gr);
	$node->init(extra => [ '-U', 'postgres' ]);
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'taskshed'");
	$node->start;
	$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
	$node->safe_psql('postgres', 'CREATE DATABASE shop OWNER app');
	$node->safe_psql('shop',
		'CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO app');
	subtest $file => sub {
		run_page(
			{
				node     => $node,
				database => 'shop',
				user     => 'postgres',
				role     => $as_superuser{$file} ? undef : 'app'
			},
			$file);
	};
	$pages++;
}
cmp_ok($pages, '>=', 7, 'the chapters were found');

# All names in the schema that pages mention, wherever they do, are there.
$node->safe_psql('postgres', 'CREATE EXTENSION taskshed');
my %there = map { $_ => 1 } split /\n/, $node->safe_psql(
	'postgres', q{
	SELECT proname FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'taskshed'::regnamespace
	UNION SELECT split_part(name, '.', 2) FROM pg_settings WHERE name ~ '^taskshed\.'}
);
foreach my $file (glob '*.md docs/*.md')
{
	my $page = read_page($file);
	my %mentioned =
	  map { $_ => 1 } $page =~ /(?<!@)\btaskshed\.(?!md|svg|control|spec)(\w+)/g;

	# In tables that compare calls with others' the schema is left out.
	foreach my $row ($page =~ /^\| `.*\|$/mg)
	{
		next if $file !~ /python-taskshed/;
		my (undef, undef, $sql) = split / *\| */, $row;
		my @calls = $sql =~ /(\w+)\(/g;

		@mentioned{@calls} = (1) x @calls;
	}
	is(join(' ', grep { !$there{$_} } sort keys %mentioned),
		'', "what $file mentions is there");
}

$node->stop;
done_testing();
