/*-------------------------------------------------------------------------
 *
 * resolve.c
 *		Which function or procedure a callback's name and argument names mean.
 *
 * The server's own rules decide, those for a call name(argument => ...): an
 * unqualified name is looked for in the search_path, defaults fill in what is
 * left out.  There are no types to choose by, since JSON has others than SQL:
 * of several that fit, the one that has just these arguments wins over those
 * that need their defaults, provided that their types differ.  If they do not,
 * SQL would not know either, and so it is whenever SQL would choose another.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "callback/callback.h"

/* Take a name apart as the user wrote it: 42883 if it is none. */
List *
resolve_name(const char *name)
{
	List	   *identifiers;
	List	   *names = NIL;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(name), '.', &identifiers) ||
		identifiers == NIL || list_length(identifiers) > 2 ||
		(strchr(name, '"') == NULL && strpbrk(name, "();") != NULL))
		resolve_report_no_name(name);

	foreach(lc, identifiers)
	{
		if (*(char *) lfirst(lc) == '\0')
			resolve_report_no_name(name);
		names = lappend(names, makeString(lfirst(lc)));
	}
	return names;
}

/* Return the schema in which CREATE FUNCTION would put a function now: 3F000 if none. */
static char *
resolve_creation_schema(const char *name)
{
	List	   *path = fetch_search_path(false);

	if (path == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("no schema has been selected for callback \"%s\"", name),
				 errhint("Name the schema, as in schema.function.")));
	return get_namespace_name(linitial_oid(path));
}

/*
 * Return, of the functions of a name, one of those that come first in the
 * search_path.
 * (The list is in no order that would mean anything.)
 */
static Oid
resolve_first(FuncCandidateList candidates)
{
	FuncCandidateList first = candidates;

	for (; candidates != NULL; candidates = candidates->next)
	{
		if (candidates->pathpos < first->pathpos)
			first = candidates;
	}
	return first->oid;
}

/*
 * Return the name under which a callback is stored when nobody checks that it
 * exists: in the schema where a function of that name is found or, failing
 * that, where CREATE FUNCTION would put it.
 */
char *
resolve_qualify(const char *name)
{
	List	   *names = resolve_name(name);
	FuncCandidateList candidates;
	char	   *schema;
	char	   *function;

	DeconstructQualifiedName(names, &schema, &function);
	if (schema == NULL)
	{
		candidates = compat_function_candidates(names, -1, NIL, false);
		if (candidates != NULL)
			return resolve_qualified_name(resolve_first(candidates));
		schema = resolve_creation_schema(name);
	}
	return quote_qualified_identifier(schema, function);
}

/*
 * Find the one function or procedure that name(key => ..., ...) calls.  Errors:
 * 42883 none, 42725 more than one, 42809 not to be called directly, 42501 no
 * USAGE on the schema.
 */
Oid
resolve_callback(const char *name, char **keys, int nkeys)
{
	List	   *names = resolve_name(name);
	List	   *argnames = NIL;
	FuncCandidateList all = compat_function_candidates(names, -1, NIL, false);
	FuncCandidateList candidates = NULL;
	FuncCandidateList candidate;
	Oid			funcid = InvalidOid;
	bool		unnamed = false;

	if (all == NULL)
		resolve_report_unknown(names);

	/* those that the server would call with arguments of these names */
	for (int i = 0; i < nkeys; i++)
	{
		argnames = lappend(argnames, keys[i]);
		unnamed = unnamed || keys[i][0] == '\0';
	}
	if (nkeys <= FUNC_MAX_ARGS && !unnamed)
		candidates = compat_function_candidates(names, nkeys, argnames, true);

	if (candidates == NULL)
	{
		/* one that takes all of kwargs, whatever that has */
		for (candidate = all; candidate != NULL && !OidIsValid(funcid); candidate = candidate->next)
		{
			if (resolve_takes_whole(candidate->oid))
				funcid = candidate->oid;
		}
		if (!OidIsValid(funcid) && all->next == NULL)
			resolve_report_arguments(all->oid, keys, nkeys);
		if (!OidIsValid(funcid))
			resolve_report_none_fits(names);
	}
	else if (candidates->next == NULL && OidIsValid(candidates->oid))
		funcid = candidates->oid;
	else
	{
		int			nexact = 0;

		/* of several, the one that needs no defaults */
		for (candidate = candidates; candidate != NULL; candidate = candidate->next)
		{
			/* several whose given arguments have the same types, in one */
			if (!OidIsValid(candidate->oid))
				resolve_report_ambiguous(names);
			if (resolve_fits_exactly(candidate->oid, nkeys))
			{
				funcid = candidate->oid;
				nexact++;
			}
		}
		if (nexact != 1)
			resolve_report_ambiguous(names);
	}

	resolve_check_kind(funcid);
	if (resolve_lacks_variadic(funcid, keys, nkeys))
		resolve_report_arguments(funcid, keys, nkeys);
	return funcid;
}

/*
 * Return the name, schema-qualified, of the functions that an alias stands for.  They
 * are not told apart by their arguments before there are any; it is enough if
 * one of them can be called.  Errors: 42883 there is none, 42809 none that can
 * be called directly.
 */
char *
resolve_target(const char *name)
{
	List	   *names = resolve_name(name);
	FuncCandidateList all = compat_function_candidates(names, -1, NIL, false);
	FuncCandidateList usable = NULL;

	if (all == NULL)
		resolve_report_unknown(names);
	for (FuncCandidateList candidate = all; candidate != NULL; candidate = candidate->next)
	{
		if (resolve_unusable(candidate->oid) == NULL &&
			(usable == NULL || candidate->pathpos < usable->pathpos))
			usable = candidate;
	}
	if (usable == NULL)
		resolve_check_kind(resolve_first(all));
	return resolve_qualified_name(usable != NULL ? usable->oid : all->oid);
}
