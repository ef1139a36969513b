#!/usr/bin/perl
# packaging/check-links.pl DIR: fail if a relative link in a page below DIR leads nowhere, or out of DIR.
# For what packages install; scripts/check-pages looks whether links in the sources and their anchors
# are right.

use strict;
use warnings;
use File::Basename qw(dirname);
use File::Find     qw(find);

my $dir = shift or die "usage: $0 DIR\n";
my ($links, @broken) = (0);

sub check_page
{
	my ($page) = @_;

	open my $in, '<', "$dir/$page" or die "$page: $!\n";
	local $/ = undef;
	my $text = <$in>;
	close $in;
	$text =~ s/^```.*?^```$//gms;
	$text =~ s/`[^`\n]*`//g;
	while ($text =~ /\]\(([^)\s#]+)[^)\s]*\)/g)
	{
		my $link = $1;
		next if $link =~ /^\w+:/;
		my @path;
		$links++;
		for (split m{/}, dirname($page) . "/$link")
		{
			next if $_ eq '.';
			if    ($_ ne '..') { push @path, $_ }
			elsif (!@path)     { push @path, '(outside)'; last }
			else               { pop @path }
		}
		my $target = join '/', @path;
		push @broken, "$page: $link\n" if !-e "$dir/$target";
	}
	return;
}

find(
	{
		no_chdir => 1,
		wanted   => sub { /\.md$/ && check_page(substr $_, 1 + length $dir) }
	},
	$dir);
die "there are no links below $dir\n" if !$links;
die "these links lead nowhere:\n", sort @broken if @broken;
print "$links links\n";
