/*-------------------------------------------------------------------------
 *
 * resolve_errors.c
 *		What to say if a callback's name and arguments mean no function.
 *
 * It is said clearly, with what was perhaps meant: whoever schedules a callback is
 * not there when it is called.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/keywords.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "callback/callback.h"

/* A name is taken for a misspelt one if no more than this many edits differ. */
#define MAX_EDITS		3

#define EXECUTE_HINT \
	"To run an SQL command, schedule taskshed.execute with the command in kwargs: '{\"command\": \"...\"}'."

/* Candidates named in a message. */
#define MAX_LISTED		10

#define SPACES " \t\r\n"

/* Return where a name ends that somebody has written, quoted parts and all. */
static const char *
resolve_end_of_name(const char *name)
{
	bool		quoted = false;

	for (; *name != '\0'; name++)
	{
		if (*name == '"')
			quoted = !quoted;
		else if (!quoted && strchr(SPACES "(;", *name) != NULL)
			break;
	}
	return name;
}

/*
 * Return whether there is a name and, perhaps with some space between, parentheses
 * and no more.
 */
static bool
resolve_is_call(const char *start, const char *end)
{
	const char *next = end + strspn(end, SPACES);
	const char *last = start + strlen(start);
	char	   *word;

	if (*next != '(')
		return false;
	if (next == end)
		return true;
	while (last > next && strchr(SPACES ";", last[-1]) != NULL)
		last--;
	word = asc_tolower(start, end - start);
	return last[-1] == ')' && ScanKeywordLookup(word, &ScanKeywords) < 0;
}

/*
 * Return a name as it has to be written, if that is what the text is without its
 * quotes: a function in the search_path has just this name.  Else return NULL.
 */
static const char *
resolve_unquoted_name(const char *text)
{
	FuncCandidateList candidates;

	if (*text == '\0' || strlen(text) >= NAMEDATALEN)
		return NULL;
	candidates = compat_function_candidates(list_make1(makeString(pstrdup(text))), -1, NIL, false);
	return candidates != NULL ? resolve_qualified_name(candidates->oid) : NULL;
}

/* Say what to write instead of a text that cannot be a callback's name: 42883. */
pg_noreturn void
resolve_report_no_name(const char *name)
{
	const char *start = name + strspn(name, SPACES);
	const char *end = resolve_end_of_name(start);
	const char *unquoted = resolve_unquoted_name(name);
	const char *hint;

	if (unquoted != NULL)
		hint = psprintf("Did you mean %s?", unquoted);
	else if (*start == '\0')
		hint = "Give the name of the function to be called.";
	else if (resolve_is_call(start, end))
		hint = "Leave the parentheses out, and give arguments by name in kwargs.";
	else if (*end != '\0')
		hint = EXECUTE_HINT;
	else
		hint = "A callback is named function or schema.function.";
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("\"%s\" is not the name of a callback", name),
			 errhint("%s", hint)));
}

/*
 * Return what a function is that a worker cannot call directly, as "an aggregate
 * function".  Return NULL if a worker can.
 */
const char *
resolve_unusable(Oid funcid)
{
	Oid			type = get_func_rettype(funcid);
	char		kind = get_func_prokind(funcid);

	if (kind == PROKIND_AGGREGATE)
		return "an aggregate function";
	if (kind == PROKIND_WINDOW)
		return "a window function";
	if (type == TRIGGEROID || type == EVENT_TRIGGEROID)
		return "a trigger function";
	/* another session can have another schema of that name, and function */
	if (isAnyTempNamespace(get_func_namespace(funcid)))
		return "a temporary function";
	return NULL;
}

/* Refuse what a worker cannot call directly: 42809. */
void
resolve_check_kind(Oid funcid)
{
	const char *what = resolve_unusable(funcid);

	if (what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is %s", resolve_signature(funcid), what),
				 isAnyTempNamespace(get_func_namespace(funcid)) ?
				 errhint("A callback is called in another session, which cannot see it.") :
				 errhint("A callback must be a function or procedure that can be called directly.")));
}

/*
 * Return how far a name is from the one that was written, case aside; more than
 * the bound if it is too far to be meant.
 */
int
resolve_distance(const char *written, const char *name, int bound)
{
	char	   *x;
	char	   *y;

	if (strlen(written) >= NAMEDATALEN || *name == '\0')
		return bound + 1;
	x = asc_tolower(written, strlen(written));
	y = asc_tolower(name, strlen(name));
	return varstr_levenshtein_less_equal(x, strlen(x), y, strlen(y), 1, 1, 1, bound, true);
}

/* Return the one of some names that is likely to have been meant, or NULL. */
const char *
resolve_closest_name(const char *written, char **names, int n)
{
	const char *closest = NULL;
	int			best = Min(MAX_EDITS, (int) strlen(written) / 2) + 1;

	for (int i = 0; i < n; i++)
	{
		int			distance = resolve_distance(written, names[i], best);

		if (distance < best)
		{
			best = distance;
			closest = names[i];
		}
	}
	return closest;
}

/*
 * Return the closest name of a function that the user may look at,
 * schema-qualified, or NULL: a namesake in another schema, or a name much like it among those
 * that are not the server's own.
 */
static char *
resolve_closest_function(const char *schema, const char *name)
{
	Oid			closest = InvalidOid;
	int			best = Min(MAX_EDITS, (int) strlen(name) / 3) + 1;
	Oid			namespace = schema != NULL ? get_namespace_oid(schema, true) : InvalidOid;
	Relation	rel = table_open(ProcedureRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
		bool		namesake = strcmp(NameStr(form->proname), name) == 0;
		int			distance;

		if (!namesake && (form->pronamespace == PG_CATALOG_NAMESPACE ||
						  (OidIsValid(namespace) && form->pronamespace != namespace)))
			continue;
		distance = resolve_distance(name, NameStr(form->proname), best);
		if (distance < best && compat_may_use_schema(form->pronamespace, GetUserId()) &&
			!isAnyTempNamespace(form->pronamespace))
		{
			best = distance;
			closest = form->oid;
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return OidIsValid(closest) ? resolve_qualified_name(closest) : NULL;
}

/* Return what is to be said of a key that is none of the names of a function's arguments, or NULL. */
static const char *
resolve_arguments_hint(const char *key, char **names, int n)
{
	const char *closest = resolve_closest_name(key, names, n);
	StringInfoData list;

	if (closest != NULL)
		return psprintf("Did you mean \"%s\"?", closest);
	if (resolve_has_key(names, n, WHOLE_ARGUMENT))
		return "An argument named kwargs takes all keys if it is the only one and of type jsonb.";
	if (n == 0 || n > MAX_LISTED)
		return NULL;
	initStringInfo(&list);
	appendStringInfoString(&list, n == 1 ? "Its argument is " : "Its arguments are ");
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, "%s\"%s\"", i == 0 ? "" : i < n - 1 ? ", " : " and ", names[i]);
	appendStringInfoChar(&list, '.');
	return list.data;
}

/* Say why the only function of a name does not take the keys: 42883. */
pg_noreturn void
resolve_report_arguments(Oid funcid, char **keys, int nkeys)
{
	char	   *signature = resolve_signature(funcid);
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);
	char	  **names = palloc((n + 1) * sizeof(char *));
	int			nnames = 0;
	StringInfoData missing;
	int			nmissing = 0;

	resolve_check_kind(funcid);

	/* no key can be that of an argument without a name */
	for (int i = 0; i < n; i++)
	{
		if (!arguments[i].is_input)
			continue;
		if (arguments[i].name[0] != '\0')
			names[nnames++] = pstrdup(arguments[i].name);
		else if (!arguments[i].has_default)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("argument %d of callback %s has no name", i + 1, signature),
					 errhint("kwargs gives arguments by name only. Name it with CREATE OR REPLACE FUNCTION, or write a function around this one.")));
	}

	/* a key that is the name of no argument */
	for (int i = 0; i < nkeys; i++)
	{
		const char *hint;

		if (resolve_has_key(names, nnames, keys[i]))
			continue;
		hint = resolve_arguments_hint(keys[i], names, nnames);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("callback %s has no argument \"%s\"", signature, keys[i]),
				 hint != NULL ? errhint("%s", hint) : 0));
	}

	/* arguments for which there is no key */
	initStringInfo(&missing);
	for (int i = 0; i < n; i++)
	{
		if (arguments[i].is_input && !arguments[i].has_default &&
			!resolve_has_key(keys, nkeys, arguments[i].name))
			appendStringInfo(&missing, "%s\"%s\"", nmissing++ > 0 ? ", " : "", arguments[i].name);
	}
	if (nmissing > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg_plural("callback %s needs a value for argument %s",
							   "callback %s needs values for arguments %s",
							   nmissing, signature, missing.data),
				 errhint("Give arguments as keys of kwargs.")));

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("callback %s cannot be called with these arguments", signature)));
}

/* Say that there is no function of a name: 42883. */
pg_noreturn void
resolve_report_unknown(List *names)
{
	char	   *schema;
	char	   *function;
	char	   *closest;
	const char *hint = NULL;

	DeconstructQualifiedName(names, &schema, &function);
	closest = resolve_closest_function(schema, function);
	if (closest != NULL)
		hint = psprintf("Did you mean %s?", closest);
	else if (schema == NULL && ScanKeywordLookup(function, &ScanKeywords) >= 0)
		hint = EXECUTE_HINT;
	else if (schema == NULL)
		hint = "No function or procedure of that name is in the search_path.";

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("callback %s does not exist", NameListToQuotedString(names)),
			 schema != NULL && !OidIsValid(get_namespace_oid(schema, true)) ?
			 errdetail("There is no schema \"%s\".", schema) : 0,
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* List the functions of a name for a message, not too many of them. */
static char *
resolve_list(FuncCandidateList candidates)
{
	StringInfoData list;
	int			n = 0;

	initStringInfo(&list);
	for (; candidates != NULL && n < MAX_LISTED; candidates = candidates->next)
	{
		if (OidIsValid(candidates->oid))
			appendStringInfo(&list, "%s%s", n++ > 0 ? ", " : "",
							 resolve_signature(candidates->oid));
	}
	if (candidates != NULL)
		appendStringInfoString(&list, ", ...");
	return list.data;
}

/* Say that none of several functions of a name takes the keys: 42883. */
pg_noreturn void
resolve_report_none_fits(List *names)
{
	FuncCandidateList all = compat_function_candidates(names, -1, NIL, false);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("no callback %s takes these arguments", NameListToQuotedString(names)),
			 errdetail("The functions of that name are %s.", resolve_list(all))));
}

/*
 * Say that a name and keys mean several functions, as far as types are not
 * looked at: 42725.
 */
pg_noreturn void
resolve_report_ambiguous(List *names)
{
	FuncCandidateList all = compat_function_candidates(names, -1, NIL, false);

	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
			 errmsg("callback %s is not unique with these arguments",
					NameListToQuotedString(names)),
			 errdetail("The functions of that name are %s.", resolve_list(all)),
			 errhint("Functions are told apart by the names of their arguments, not by the types.")));
}
