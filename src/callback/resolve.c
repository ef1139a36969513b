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
 * The larger part is to say clearly why there is no such function: whoever
 * schedules is not there when it is called.
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
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "callback/callback.h"

/* The one argument of a function that takes all of kwargs as it is. */
#define WHOLE_ARGUMENT	"kwargs"

/* A name is taken for a misspelt one if no more than this many edits differ. */
#define MAX_EDITS		3

#define EXECUTE_HINT \
	"To run an SQL command, schedule taskshed.execute with the command in kwargs: '{\"command\": \"...\"}'."

/* Candidates named in a message. */
#define MAX_LISTED		10

#define SPACES " \t\r\n"

/* Where a name ends that somebody has written, quoted parts and all. */
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

/* Is there a name and, perhaps with some space between, parentheses and no more? */
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

/* Says what to write instead of a text that cannot be a callback's name: 42883. */
pg_noreturn static void
resolve_report_no_name(const char *name)
{
	const char *start = name + strspn(name, SPACES);
	const char *end = resolve_end_of_name(start);
	const char *hint;

	if (*start == '\0')
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

/* A name as the user wrote it, taken apart. */
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

/* A function's name, schema-qualified and quoted. */
char *
resolve_qualified_name(Oid funcid)
{
	char	   *name = get_func_name(funcid);
	char	   *schema = get_namespace_name(get_func_namespace(funcid));

	if (name == NULL || schema == NULL)
		elog(ERROR, "cache lookup failed for function %u", funcid);
	return quote_qualified_identifier(schema, name);
}

/* schema.name(argument type, ...), for messages. */
char *
resolve_signature(Oid funcid)
{
	Datum		arguments = OidFunctionCall1(F_PG_GET_FUNCTION_IDENTITY_ARGUMENTS,
											 ObjectIdGetDatum(funcid));

	return psprintf("%s(%s)", resolve_qualified_name(funcid), TextDatumGetCString(arguments));
}

/* The schema in which CREATE FUNCTION would put a function now: 3F000 if none. */
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
 * Of the functions of a name, one of those that come first in the search_path.
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
 * The name under which a callback is stored when nobody checks that it
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
 * A function's arguments.  OUT arguments are among them: a procedure's call
 * must name them.  An argument without a name has "".
 */
int
resolve_arguments(Oid funcid, CallbackArgument **arguments)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			ninputs = 0;
	int			first_default;
	int			n;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	n = get_func_arg_info(tuple, &types, &names, &modes);
	*arguments = palloc((n + 1) * sizeof(CallbackArgument));
	for (int i = 0; i < n; i++)
	{
		CallbackArgument *argument = &(*arguments)[i];
		char		mode = modes != NULL ? modes[i] : PROARGMODE_IN;

		argument->name = names != NULL && names[i] != NULL ? names[i] : "";
		argument->type = types[i];
		argument->is_input = (mode == PROARGMODE_IN || mode == PROARGMODE_INOUT ||
							  mode == PROARGMODE_VARIADIC);
		argument->is_variadic = (mode == PROARGMODE_VARIADIC);
		argument->is_result = (mode == PROARGMODE_OUT);
		if (argument->is_input)
			ninputs++;
	}

	/* the last input arguments are those with defaults */
	first_default = ninputs - ((Form_pg_proc) GETSTRUCT(tuple))->pronargdefaults;
	for (int i = 0, input = 0; i < n; i++)
	{
		/* a call by name cannot leave out a VARIADIC argument */
		(*arguments)[i].has_default = (*arguments)[i].is_input && input >= first_default &&
			!(*arguments)[i].is_variadic;
		if ((*arguments)[i].is_input)
			input++;
	}
	ReleaseSysCache(tuple);
	return n;
}

/* Does a function take all of kwargs as one argument? */
bool
resolve_takes_whole(Oid funcid)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);
	int			ninputs = 0;
	bool		whole = false;

	for (int i = 0; i < n; i++)
	{
		if (!arguments[i].is_input)
			continue;
		ninputs++;
		whole = (arguments[i].type == JSONBOID &&
				 strcmp(arguments[i].name, WHOLE_ARGUMENT) == 0);
	}
	return ninputs == 1 && whole;
}

static bool
resolve_has_key(char **keys, int nkeys, const char *name)
{
	for (int i = 0; i < nkeys; i++)
	{
		if (strcmp(keys[i], name) == 0)
			return true;
	}
	return false;
}

/* Does a function have a VARIADIC argument that is not among the keys? */
static bool
resolve_lacks_variadic(Oid funcid, char **keys, int nkeys)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);

	for (int i = 0; i < n; i++)
	{
		if (arguments[i].is_variadic && !resolve_has_key(keys, nkeys, arguments[i].name))
			return true;
	}
	return false;
}

/* Has a function just these input arguments, no more? */
static bool
resolve_fits_exactly(Oid funcid, int nkeys)
{
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);
	int			ninputs = 0;

	for (int i = 0; i < n; i++)
		ninputs += arguments[i].is_input;
	return ninputs == nkeys;
}

/* What a worker cannot call directly: "an aggregate function", say, or NULL. */
static const char *
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

/* Refuses what a worker cannot call directly: 42809. */
static void
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
 * How far a name is from the one that was written, case aside; more than the
 * bound if it is too far to be meant.
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

/* The closest of a function's input argument names, or NULL. */
static const char *
resolve_closest_argument(const char *key, const CallbackArgument *arguments, int n)
{
	const char *closest = NULL;
	int			best = Min(MAX_EDITS, (int) strlen(key) / 2) + 1;

	for (int i = 0; i < n; i++)
	{
		int			distance;

		if (!arguments[i].is_input)
			continue;
		distance = resolve_distance(key, arguments[i].name, best);
		if (distance < best)
		{
			best = distance;
			closest = arguments[i].name;
		}
	}
	return closest;
}

/*
 * The closest name of a function that the user may look at, schema-qualified,
 * or NULL: a namesake in another schema, or a name much like it among those
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

/* Says why the only function of a name does not take the keys: 42883. */
pg_noreturn static void
resolve_report_arguments(Oid funcid, char **keys, int nkeys)
{
	char	   *signature = resolve_signature(funcid);
	CallbackArgument *arguments;
	int			n = resolve_arguments(funcid, &arguments);
	StringInfoData missing;
	int			nmissing = 0;
	bool		whole = false;

	resolve_check_kind(funcid);
	for (int i = 0; i < nkeys; i++)
	{
		const char *closest;
		bool		known = false;

		for (int j = 0; !known && j < n; j++)
			known = arguments[j].is_input && strcmp(keys[i], arguments[j].name) == 0;
		if (known)
			continue;
		closest = resolve_closest_argument(keys[i], arguments, n);
		for (int j = 0; j < n; j++)
		{
			if (arguments[j].is_input && strcmp(arguments[j].name, WHOLE_ARGUMENT) == 0)
				whole = true;
		}
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("callback %s has no argument \"%s\"", signature, keys[i]),
				 closest != NULL ? errhint("Did you mean \"%s\"?", closest) :
				 whole ? errhint("An argument named kwargs takes all keys if it is the only one and of type jsonb.") : 0));
	}

	initStringInfo(&missing);
	for (int i = 0; i < n; i++)
	{
		if (!arguments[i].is_input || arguments[i].has_default ||
			(arguments[i].name[0] != '\0' && resolve_has_key(keys, nkeys, arguments[i].name)))
			continue;
		if (arguments[i].name[0] == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("argument %d of callback %s has no name", i + 1, signature),
					 errhint("kwargs gives arguments by name only. Name it with CREATE OR REPLACE FUNCTION, or write a function around this one.")));
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

/* Says that there is no function of a name: 42883. */
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

/*
 * Says that a name and keys mean several functions, as far as types are not
 * looked at: 42725.
 */
void
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

/*
 * The one function or procedure that name(key => ..., ...) calls.  Errors:
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

	for (int i = 0; i < nkeys; i++)
	{
		argnames = lappend(argnames, keys[i]);
		unnamed = unnamed || keys[i][0] == '\0';
	}
	if (nkeys <= FUNC_MAX_ARGS && !unnamed)
		candidates = compat_function_candidates(names, nkeys, argnames, true);

	if (candidates == NULL)
	{
		for (candidate = all; candidate != NULL && !OidIsValid(funcid); candidate = candidate->next)
		{
			if (resolve_takes_whole(candidate->oid))
				funcid = candidate->oid;
		}
		if (!OidIsValid(funcid) && all->next == NULL)
			resolve_report_arguments(all->oid, keys, nkeys);
		if (!OidIsValid(funcid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("no callback %s takes these arguments", NameListToQuotedString(names)),
					 errdetail("The functions of that name are %s.", resolve_list(all))));
	}
	else if (candidates->next == NULL && OidIsValid(candidates->oid))
		funcid = candidates->oid;
	else
	{
		int			nexact = 0;

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
 * The name, schema-qualified, of the functions that an alias stands for.  They
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
